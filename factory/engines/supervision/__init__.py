"""Models in child processes that are monitored and restarted."""
