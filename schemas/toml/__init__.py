"""A table of a TOML file: read with its lines, checked, its fields marked by what they are."""
