"""Opening data files as text: their kind and compression by name, their encoding by content."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TextIO, TypeAlias, cast

from schemas.errors import InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Kind: TypeAlias = Literal["parquet", "jsonl", "json", "csv", "tsv"]

_KINDS: dict[str, Kind] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
}
_COMPRESSIONS = (".gz", ".zst", ".zstd", ".bz2", ".xz")

ALLOWED = f"{', '.join(_KINDS)}, and all but the first also with {', '.join(_COMPRESSIONS)}"
"""The endings of files that can be read, for messages; upper and lower case are treated alike."""

DAMAGES = (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeError)
"""Exceptions of reading a file that is missing, truncated, or not what its ending or byte order mark claims."""

_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",  # before UTF-16, because it starts with the mark of UTF-16
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_STREAMS: dict[str, Callable[[], Any]] = {".bz2": bz2.BZ2Decompressor, ".xz": lzma.LZMADecompressor}
_CHUNK_BYTES = 1 << 16
_SAMPLE_BYTES = 4096
_ENOUGH_NULLS = 8
"""The minimum number of null bytes that indicates UTF-16 or UTF-32; fewer are treated as faults of single rows."""


def find_kind(path: Path) -> Kind | None:
    """Return the kind of a file by its name, or None if it cannot be read."""
    *others, last = ["", *(suffix.lower() for suffix in path.suffixes)]
    if last not in _COMPRESSIONS:
        return _KINDS.get(last)
    kind = _KINDS.get(others[-1])
    return None if kind == "parquet" else kind


@contextmanager
def open_text(path: Path, *, newline: str = "\n") -> Iterator[TextIO]:
    """Open a file as text, without its byte order mark; bytes that are not UTF-8 become lone surrogates.

    The encoding is UTF-8 unless a byte order mark says UTF-16 or UTF-32. Compressed files are decompressed on the fly.

    Raises:
        InputError: the file is UTF-16 or UTF-32 without a byte order mark.
    """
    with _open_bytes(path) as file:
        encoding = _find_encoding(file.read(_SAMPLE_BYTES), path)
    errors = "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass"
    with _open_bytes(path) as file, io.TextIOWrapper(file, encoding=encoding, errors=errors, newline=newline) as text:
        yield text


def _open_bytes(path: Path) -> BinaryIO:
    suffix = path.suffix.lower()
    if suffix in _STREAMS:
        return io.BufferedReader(_Chunks(_read_streams(path, _STREAMS[suffix])), _CHUNK_BYTES)
    if suffix in {".zst", ".zstd"}:
        import pyarrow as pa  # takes 30 MB of memory, and only this compression needs it

        return cast("BinaryIO", io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd")))
    return cast("BinaryIO", gzip.open(path, "rb")) if suffix == ".gz" else path.open("rb")


def _read_streams(path: Path, make: Callable[[], object]) -> Iterator[bytes]:
    """Yield the decompressed bytes of all streams in a file; parallel compressors write many.

    Python's own readers are not used because they silently stop at a stream that is damaged or follows padding.
    """
    stream: Any = make()
    with path.open("rb") as file:
        for chunk in iter(partial(file.read, _CHUNK_BYTES), b""):
            while chunk:
                if stream is None:
                    chunk = chunk.lstrip(b"\0")
                    stream = make() if chunk else None
                    continue
                yield stream.decompress(chunk, _CHUNK_BYTES)
                while not (stream.eof or stream.needs_input):
                    yield stream.decompress(b"", _CHUNK_BYTES)
                chunk, stream = (stream.unused_data, None) if stream.eof else (b"", stream)
    if stream is not None:
        raise EOFError("it ends within a compressed stream")


class _Chunks(io.RawIOBase):
    """An iterator of byte chunks as a file object."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = filter(None, chunks), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        self._rest = self._rest or next(self._chunks, b"")
        view = memoryview(buffer)
        size = min(len(view), len(self._rest))
        view[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _find_encoding(sample: bytes, path: Path) -> str:
    marked = next((encoding for mark, encoding in _MARKS.items() if sample.startswith(mark)), None)
    if marked is not None:
        return marked
    unmarked = _find_unmarked(sample)
    if unmarked is not None:
        raise InputError(
            f"{path} is {unmarked} without a byte order mark; save it as UTF-8, as `iconv -f {unmarked} -t UTF-8` does"
        )
    return "utf-8"


def _find_unmarked(sample: bytes) -> str | None:
    """Return UTF-16 or UTF-32, with byte order, if the null bytes indicate it, else None.

    All JSON and most CSV contain ASCII characters, whose null bytes have fixed positions in these encodings.
    """
    if sample.count(0) < _ENOUGH_NULLS:
        return None  # in a small file, a stray null character or two would already look like a pattern
    first, second, third, fourth = (sample[at::4].count(0) / max(len(sample[at::4]), 1) for at in range(4))
    even, odd = (first + third) / 2, (second + fourth) / 2
    if min(third, fourth) > 0.9:
        return "UTF-32LE"
    if min(first, second) > 0.9:
        return "UTF-32BE"
    if max(even, odd) > 0.05 and max(even, odd) > 4 * min(even, odd):
        return "UTF-16LE" if odd > even else "UTF-16BE"
    return None
