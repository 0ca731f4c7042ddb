"""Models in child processes that are watched and started again."""
