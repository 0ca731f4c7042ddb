"""The SQL command."""
