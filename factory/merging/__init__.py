"""The model merger: combines several checkpoints into one, streaming them block by block."""
