"""Checkpoints on disk: the tensors of a model folder, its adapters, and the files beside them."""
