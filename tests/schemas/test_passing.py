import errno
import socket

import httpx
import pytest

from schemas.errors import EngineError, InputError
from schemas.passing import is_passing

REQUEST = httpx.Request("GET", "http://host")


def answered(status: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("", request=REQUEST, response=httpx.Response(status, request=REQUEST))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        BrokenPipeError(),
        TimeoutError(),
        InterruptedError(errno.EINTR, ""),
        OSError(errno.ESTALE, "stale"),
        OSError(errno.EHOSTUNREACH, "no route"),
        socket.gaierror(socket.EAI_AGAIN, "again"),
        httpx.ConnectError(""),
        httpx.ReadTimeout(""),
        httpx.RemoteProtocolError(""),
        *map(answered, (408, 425, 429, 500, 502, 503, 504, 520, 524, 525, 526, 527, 529, 530)),
    ],
    ids=repr,
)
def test_what_passes(error):
    assert is_passing(error)


@pytest.mark.parametrize(
    "error",
    [
        AssertionError(),
        *(
            kind("mistake")
            for kind in (ValueError, TypeError, KeyError, RuntimeError, MemoryError, NotImplementedError)
        ),
        KeyboardInterrupt(),
        OSError("without a number"),
        OSError(errno.ENOSPC, "full"),
        FileNotFoundError(errno.ENOENT, "no file"),
        PermissionError(errno.EACCES, "denied"),
        socket.gaierror(socket.EAI_NONAME, "no such host"),
        httpx.UnsupportedProtocol(""),
        httpx.DecodingError(""),
        httpx.TooManyRedirects(""),
        httpx.InvalidURL(""),
        EngineError("no weights"),
        InputError("no file"),
        *map(answered, (400, 401, 403, 404, 413, 422, 501, 505, 511)),
    ],
    ids=repr,
)
def test_what_comes_back_however_often_it_is_tried(error):
    assert not is_passing(error)
