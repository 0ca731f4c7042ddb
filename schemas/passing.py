"""Transient errors, which are worth a retry.

Any error that is not listed here is a mistake of the user or a bug, and would come back however often we retried.
Transaction conflicts are recognized by DuckDB's messages, in ``warehouse.lake.duckdb_errors``.
"""

import errno
import socket
from functools import cache

PASSING_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, *range(520, 528), 529, 530})
"""HTTP statuses of a server that is busy, starting, or unreachable behind a proxy; proxies use 520 to 530."""

PASSING_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EINTR,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
"""Error numbers of a network, or a network disk, that is unavailable for a moment."""


@cache
def list_passing_transport() -> tuple[type[Exception], ...]:
    """Return the exceptions that httpx raises for a connection that breaks or cannot be established."""
    import httpx  # takes a tenth of a second, and most runs meet no error

    return (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)


def is_passing(error: BaseException) -> bool:
    """Whether the operation that failed with this error is worth repeating unchanged."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in PASSING_STATUSES
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in PASSING_ERRNOS
    return isinstance(error, list_passing_transport())
