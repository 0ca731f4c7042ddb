"""How long tests wait."""

GUARD_SECONDS = 600.0
"""A guard against hanging, and no more: what a test waits for comes by an event, however slow the machine is."""
