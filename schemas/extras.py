"""Packages that may be missing: asked for in one sentence where an extra of the installation brings them, or left out."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from schemas.errors import MissingPackageError

INSTALL = (
    "`pip install 'expanse-factory[cpu]'`, or [gpu] on a machine with NVIDIA GPUs; in a checkout `make setup`, or "
    "`make setup DEVICE=gpu`"
)

_BY_EVALUATE = {"fugashi", "jieba", "unidic_lite"}
"""The packages of the extra ``evaluate``; ``cpu`` and ``gpu`` contain them too, and all other optional packages."""


@contextmanager
def absent(package: str) -> Iterator[None]:
    """Have imports in a ``with`` block find that a package is not installed, unless it has been imported before."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment] # which is how Python is told
    try:
        yield
    finally:
        del sys.modules[package]


def require(packages: Iterable[str]) -> None:
    """Check that packages are installed, by their import names, without importing them.

    Raises:
        MissingPackageError: some are not installed; the message says how to install them.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        install = "`pip install 'expanse-factory[evaluate]'`" if _BY_EVALUATE.issuperset(missing) else INSTALL
        raise MissingPackageError(f"this needs {', '.join(missing)}, which is not installed: {install}")
