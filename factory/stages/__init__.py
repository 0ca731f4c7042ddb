"""Pure functions: they plan requests from rows and turn replies into rows."""
