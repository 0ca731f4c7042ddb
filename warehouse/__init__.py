"""The disk and DuckDB edge: the lake, its SQL, and exports."""
