"""The disk and DuckDB edge: the lake, its SQL, and exports."""

import os

# Arrow's own allocator keeps what has passed through it; it is chosen before Arrow is first imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
