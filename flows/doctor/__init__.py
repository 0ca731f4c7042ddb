"""The check-up of a machine and a recipe before a run."""
