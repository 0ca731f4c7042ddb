"""Where a warehouse lies, whose its files are, and who may write at once."""
