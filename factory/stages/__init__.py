"""The stages as pure functions: they plan requests from rows and turn replies into rows."""
