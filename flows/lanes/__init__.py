"""Models at work: one lane a model, its slot of GPUs, its commits and its progress."""
