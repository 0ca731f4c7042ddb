"""A small world with known truth, in every language: what the demo and the tests run on."""
