"""The form of a conversation."""

import polars as pl

MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
"""The dtype of a conversation in a frame."""
