"""The model merger: many checkpoints in, one out, streamed block by block."""

from importlib import import_module

from factory.loading import loading

with loading():
    import_module("torch")
