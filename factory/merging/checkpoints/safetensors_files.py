"""Safetensors files, read and written at arbitrary positions.

Files are read with ``preadv`` instead of a memory map: pages of the inputs do not count as our memory, and a file that
is truncated while being read raises an error instead of killing the process with SIGBUS.
"""

import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schemas.errors import InputError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The format's names of the dtypes that can be merged or copied, with torch's dtypes."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}

MAX_HEADER_BYTES = 100_000_000
"""The limit that the format defines."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """The location of a tensor: its file, the position of its first byte, its dtype and shape."""

    path: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * int(self.dtype.itemsize)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a file by name, in the order of their bytes.

    Raises:
        InputError: the file is missing, is not safetensors, or is truncated.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = struct.unpack("<Q", file.read(8))[0]
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise InputError(
                    f"'{path}' is truncated or not safetensors: its header alone should have {length} bytes"
                )
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
        tensors = {name: _locate(path, name, 8 + length, entry) for name, entry in entries}
    except FileNotFoundError as error:
        raise InputError(f"there is no file '{path}'") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise InputError(f"'{path}' is not a safetensors file") from error
    end = max((tensor.offset + tensor.num_bytes for tensor in tensors.values()), default=0)
    if end > size:
        raise InputError(f"'{path}' is truncated: it has {size:,} bytes and should have {end:,}")
    return tensors


def _locate(path: Path, name: str, start: int, entry: Mapping[str, Any]) -> StoredTensor:
    if entry["dtype"] not in DTYPES:
        allowed = ", ".join(DTYPES)
        raise InputError(f"tensor '{name}' in '{path}' has dtype {entry['dtype']}; allowed are {allowed}")
    begin, end = entry["data_offsets"]
    tensor = StoredTensor(path, start + begin, DTYPES[entry["dtype"]], tuple(entry["shape"]))
    if tensor.num_bytes != end - begin:
        raise InputError(
            f"tensor '{name}' in '{path}' has {end - begin:,} bytes, but its shape needs {tensor.num_bytes:,}"
        )
    return tensor


class Reader:
    """A set of open files that several threads may read from."""

    def __init__(self) -> None:
        self._files: dict[Path, int] = {}
        self.read_matrix = lru_cache(maxsize=16)(self._read_matrix)
        """Return a whole matrix; recent ones are cached, since all blocks of a parameter need the same."""

    def open(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path not in self._files:
                self._files[path] = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def fill(self, values: Tensor, tensor: StoredTensor, start: int) -> Tensor:
        """Fill the flat tensor ``values``, which has the stored dtype, with the elements from ``start`` on; return it.

        Raises:
            InputError: the file was truncated in the meantime.
        """
        view = values.view(torch.uint8).numpy().data
        position, done = tensor.offset + start * tensor.dtype.itemsize, 0
        while done < len(view):
            count = os.preadv(self._files[tensor.path], [view[done:]], position + done)
            if count == 0:
                raise InputError(f"'{tensor.path}' was truncated while it was read")
            done += count
        return values

    def _read_matrix(self, tensor: StoredTensor, dtype: torch.dtype, device: torch.device) -> Tensor:
        values = self.fill(torch.empty(tensor.num_elements, dtype=tensor.dtype), tensor, 0)
        return values.view(tensor.shape).to(device).to(dtype)

    def prefetch(self, tensor: StoredTensor) -> None:
        """Ask the operating system to start reading a tensor from disk."""
        os.posix_fadvise(self._files[tensor.path], tensor.offset, tensor.num_bytes, os.POSIX_FADV_WILLNEED)


@contextmanager
def open_reader() -> Iterator[Reader]:
    """Yield a reader, and close its files at the end."""
    reader = Reader()
    try:
        yield reader
    finally:
        reader.close()


class Writer:
    """Writes safetensors shards with an index; several threads may write parts of tensors in any order."""

    def __init__(
        self, folder: Path, tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], max_shard_bytes: int
    ) -> None:
        """Create the shards at their full size, with headers and index.

        Args:
            folder: an existing, empty folder.
            tensors: dtype and shape by name, in the order in which they are stored.
            max_shard_bytes: the maximum size of a shard; a larger tensor gets a shard of its own.
        """
        self._files: dict[Path, int] = {}
        self._places: dict[str, StoredTensor] = {}
        shards = _split(tensors, max_shard_bytes)
        for number, names in enumerate(shards, start=1):
            name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
            self._open(folder / name, {key: tensors[key] for key in names})
        if len(shards) > 1:
            self._write_index(folder / "model.safetensors.index.json")

    def _open(self, path: Path, tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, (dtype, shape) in tensors.items():
            begin, end = end, end + math.prod(shape) * dtype.itemsize
            header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self._files[path] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        os.ftruncate(self._files[path], 8 + len(text) + end)
        os.pwrite(self._files[path], struct.pack("<Q", len(text)) + text, 0)
        position = 8 + len(text)
        for name, (dtype, shape) in tensors.items():
            self._places[name] = StoredTensor(path, position, dtype, shape)
            position += self._places[name].num_bytes

    def _write_index(self, path: Path) -> None:
        sizes = [place.num_bytes for place in self._places.values()]
        weight_map = {name: place.path.name for name, place in self._places.items()}
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
        path.write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def dtype_of(self, name: str) -> torch.dtype:
        """Return the dtype in which a tensor is written."""
        return self._places[name].dtype

    def write(self, name: str, start: int, values: Tensor) -> None:
        """Write the flat ``values``, in the tensor's dtype, from element ``start`` of the flattened tensor on."""
        place = self._places[name]
        view = values.contiguous().view(torch.uint8).numpy().data
        position, done = place.offset + start * place.dtype.itemsize, 0
        while done < len(view):
            done += os.pwrite(self._files[place.path], view[done:], position + done)

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


def _split(tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], max_bytes: int) -> list[list[str]]:
    """Return the names of the tensors in each shard, in order; there is at least one shard."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, (dtype, shape) in tensors.items():
        num_bytes = math.prod(shape) * dtype.itemsize
        if shards[-1] and filled + num_bytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += num_bytes
    return shards
