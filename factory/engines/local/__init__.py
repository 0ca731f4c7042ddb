"""Models on this machine, which run in child processes."""
