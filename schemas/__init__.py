"""The vocabulary of the factory: languages, ids, tables, recipes and errors."""
