"""The processes that train and merge for another one."""

from pathlib import Path


def find_children(package: str, folder: Path) -> list[int]:
    """Return the processes that run a package on what lies in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if package.encode() in words and any(str(folder).encode() in word for word in words):
            found.append(int(path.parent.name))
    return found
