"""Tables of TOML files: reading and checking them with line numbers, and marks that say what a field is."""
