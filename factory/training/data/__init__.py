"""Training data: rows, tokens, batches."""
