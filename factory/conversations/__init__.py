"""Reading conversations in the formats of known data sets."""
