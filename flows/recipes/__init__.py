"""The recipes that ship with the factory, and writing one to start from."""
