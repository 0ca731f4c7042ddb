"""Locks between processes: leases of lanes, and the short lock around a commit.

Beside a SQLite catalog a lock is a locked file; on Postgres it is an advisory lock of a session. Both end with the
process that holds them, however it dies, so nothing has to be cleaned up after a kill.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from schemas.errors import HeldError, WarehouseError
from schemas.file_lock import claim, lock, name_holder, unlock
from schemas.ids import content_id
from warehouse.catalog.catalog import Catalog, is_read_only

if TYPE_CHECKING:
    import psycopg

WRITE = "the write lock"
"""The name of the lock around a commit."""

_READ, _GATE = "the read lock", "the gate of the read lock"
"""What readers share; and where new ones wait while a compaction waits for those before them."""


class Locks(Protocol):
    """Named locks of one warehouse, each with one holder among all threads, processes and machines."""

    def hold(self, name: str, *, wait: bool) -> contextlib.AbstractContextManager[None]:
        """Hold a lock for the length of a ``with`` block.

        Raises:
            HeldError: ``wait`` is false and somebody holds it; names the holder.
        """
        ...

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Keep compaction away for the length of a ``with`` block; many may read at once."""
        ...

    def rewriting(self, *, patience: float) -> contextlib.AbstractContextManager[bool]:
        """Keep readers away for the length of a ``with`` block; false when some still read after ``patience`` seconds."""
        ...

    def check(self) -> None:
        """Make sure that every lock held is still held.

        Raises:
            WarehouseError: one was lost, because the connection that held it ended.
        """
        ...

    def close(self) -> None:
        """Give back what the locks need while nothing is held."""
        ...


def open_locks(catalog: Catalog) -> Locks:
    """Return the locks of a warehouse; where nobody can write, none are needed."""
    if catalog.sqlite and catalog.sqlite.exists() and is_read_only(catalog):
        return NoLocks()
    return PostgresLocks(catalog) if catalog.sqlite is None else FileLocks(catalog.sqlite)


class NoLocks:
    """The locks of a warehouse on a read-only file system."""

    def hold(self, name: str, *, wait: bool) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002
        return contextlib.nullcontext()

    def reading(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def rewriting(self, *, patience: float) -> contextlib.AbstractContextManager[bool]:  # noqa: ARG002
        return contextlib.nullcontext(True)

    def check(self) -> None:
        """Nothing to do: nothing is held."""

    def close(self) -> None:
        """Nothing to do: nothing is open."""


class FileLocks:
    """Locked files in ``<catalog>.locks``. A file that nobody has locked means nothing and is left where it is."""

    def __init__(self, catalog: Path) -> None:
        self._folder = catalog.with_name(catalog.name + ".locks")

    @contextlib.contextmanager
    def hold(self, name: str, *, wait: bool) -> Iterator[None]:
        with self._open(content_id("lock", name)) as file:
            holder = claim(file, wait=wait)
            if holder is not None:
                raise _taken(name, holder)
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Share a lock with all readers.

        DuckLake reads a SQLite catalog in several statements with no transaction in common: with a compaction between
        them, the files that it merged are in neither list, and a query would miss their rows.
        """
        with self._open(content_id("lock", _GATE)) as gate, self._open(content_id("lock", _READ)) as file:
            lock(gate, shared=True)
            lock(file, shared=True)
            unlock(gate)
            yield

    @contextlib.contextmanager
    def rewriting(self, *, patience: float) -> Iterator[bool]:
        deadline = time.monotonic() + patience
        with self._open(content_id("lock", _GATE)) as gate, self._open(content_id("lock", _READ)) as file:
            lock(gate)
            while not (is_alone := lock(file, wait=False)) and time.monotonic() < deadline:
                time.sleep(0.02)
            if not is_alone:
                unlock(gate)
            yield is_alone

    def _open(self, name: str) -> TextIO:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return (self._folder / name).open("a+", encoding="utf-8")
        except OSError as error:
            raise WarehouseError(
                f"the warehouse cannot be written: {error.strerror} ({error.filename or self._folder})"
            ) from None

    def check(self) -> None:
        """Nothing to do: a locked file stays locked while its process lives."""

    def close(self) -> None:
        """Nothing to do: a file is open only while its lock is held."""


class PostgresLocks:
    """Advisory locks, a session each; keep-alives end the session of a machine that vanished within two minutes."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._held: dict[str, psycopg.Connection] = {}
        self._spare: list[psycopg.Connection] = []
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def hold(self, name: str, *, wait: bool) -> Iterator[None]:
        key = int(content_id("lock", name)[:16], 16) - 2**63
        session = self._lock(name, key, wait=wait)
        with self._guard:
            self._held[f"{name} {id(session)}"] = session
        try:
            yield
        finally:
            with self._guard:
                del self._held[f"{name} {id(session)}"]
            self._unlock(session, key)

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Nothing to do: DuckLake reads a Postgres catalog in one repeatable transaction."""
        return contextlib.nullcontext()

    def rewriting(self, *, patience: float) -> contextlib.AbstractContextManager[bool]:  # noqa: ARG002
        """Nothing to do, as for readers."""
        return contextlib.nullcontext(True)

    def check(self) -> None:
        import psycopg

        with self._guard:
            held = list(self._held.items())
        for name, session in held:
            try:
                session.execute("SELECT 1")
            except psycopg.Error:
                raise WarehouseError(
                    f"the lock {name.rpartition(' ')[0]!r} of the warehouse {self._catalog.shown} was lost, because the "
                    "connection to Postgres ended; run again, and what is stored is kept"
                ) from None

    def close(self) -> None:
        with self._guard:
            spare, self._spare = self._spare, []
        for session in spare:
            session.close()

    def _lock(self, name: str, key: int, *, wait: bool) -> "psycopg.Connection":
        import psycopg

        for spare in (True, False):
            session = self._session(spare=spare)
            try:
                if wait:
                    session.execute("SELECT pg_advisory_lock(%s)", [key])
                    return session
                row = session.execute("SELECT pg_try_advisory_lock(%s)", [key]).fetchone()
                if row is not None and row[0]:
                    return session
                holder = session.execute(_HOLDER, [key]).fetchone()
                session.close()
                raise _taken(name, str(holder[0]) if holder else "")
            except psycopg.OperationalError as error:
                session.close()
                if not spare:
                    raise self._failed(error) from None
            except BaseException:
                session.close()
                raise
        raise AssertionError("unreachable")

    def _unlock(self, session: "psycopg.Connection", key: int) -> None:
        import psycopg

        try:
            session.execute("SELECT pg_advisory_unlock(%s)", [key])
        except psycopg.Error:
            session.close()
        else:
            with self._guard:
                self._spare.append(session)

    def _session(self, *, spare: bool) -> "psycopg.Connection":
        import psycopg

        if spare:
            with self._guard:
                if self._spare:
                    return self._spare.pop()
        try:
            return psycopg.connect(
                self._catalog.address,
                application_name=name_holder(),
                options="-c tcp_keepalives_idle=60 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=6",
                autocommit=True,
            )
        except psycopg.Error as error:
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> WarehouseError:
        return WarehouseError(f"the warehouse {self._catalog.shown}: {self._catalog.redact(str(error))}")


_HOLDER = """
SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32 | objid::bigint) = %s
"""


def _taken(name: str, holder: str) -> HeldError:
    return HeldError(f"{name!r} is held by {holder or 'another process'}; wait for it to end, or stop it")
