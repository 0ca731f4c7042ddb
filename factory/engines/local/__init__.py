"""Models on this machine, as their child processes run them."""
