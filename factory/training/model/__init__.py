"""The model in training: attention, log-probabilities, losses, sharding."""
