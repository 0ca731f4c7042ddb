"""The commands that make models, and the rows that record them."""
