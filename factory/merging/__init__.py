"""The model merger: many checkpoints in, one out, streamed block by block."""
