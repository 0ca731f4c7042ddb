"""What is worth trying again: the faults that pass by themselves.

Whatever is not listed here is a mistake, the user's or ours, and comes back however often it is tried. Which messages of
DuckDB speak of two programs meeting is in ``warehouse.lake.duckdb_errors``, beside their other meanings.
"""

import errno
import socket
from functools import cache

PASSING_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, *range(520, 528), 529, 530})
"""HTTP statuses of a server that is busy, starting or behind a proxy that does not reach it; 520 to 530 are proxies' own."""

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
"""What the system says of a network, or of a disk behind one, that is away for a moment."""


@cache
def list_passing_transport() -> tuple[type[Exception], ...]:
    """Return what a connection that breaks, or cannot be made now, raises."""
    import httpx  # takes a tenth of a second, and few runs meet an error

    return (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)


def is_passing(error: BaseException) -> bool:
    """Whether what failed with this error is worth trying again as it is."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in PASSING_STATUSES
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError | TimeoutError) or error.errno in PASSING_ERRNOS
    return isinstance(error, list_passing_transport())
