"""Merging whole checkpoints into a folder that vLLM and transformers can load."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from factory.merging.checkpoints.companions import compare_companions, write_companions
from factory.merging.checkpoints.parents import Checkpoint, fit_together, open_checkpoint
from factory.merging.checkpoints.safetensors_files import Reader, Writer, open_reader
from factory.merging.methods import MIN_WEIGHT_SUM
from factory.merging.passes import Block, Parameter, Scratch, copy_steps, plan_steps
from factory.merging.result import MergeResult
from factory.merging.stream import BLOCK_ELEMENTS, GPU_BLOCK_ELEMENTS, Work, default_num_threads, stream
from factory.merging.weights import count_layers, find_depth, weights_of
from schemas.disk import whole_folder
from schemas.errors import InputError
from schemas.recipe.merging import MergeSettings

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of bytes written so far and the total."""


def merge(settings: MergeSettings, output: Path, *, progress: Progress | None = None) -> MergeResult:
    """Merge checkpoints into the folder ``output``, which is written atomically.

    Raises:
        InputError: a parent is missing, damaged or does not match the others, the weights sum to zero, the folder
            exists, or there is not enough disk space.
        HeldError: another process is merging into the same folder.
    """
    started = time.monotonic()
    if output.exists():
        raise InputError(f"'{output}' already exists; choose another folder")
    _check_device(settings.run.device)
    opened = [open_checkpoint(model) for model in settings.models]
    base = None if settings.base is None else open_checkpoint(settings.base)
    notes = compare_companions(opened, base)
    fitted, more = fit_together([*opened, *([] if base is None else [base])])
    parameters = plan_parameters(settings, fitted[0])
    wanted = None if settings.dtype is None else getattr(torch, settings.dtype)
    dtypes = {name: _output_dtype(tensor.dtype, wanted) for name, tensor in fitted[0].tensors.items()}
    with whole_folder(output) as folder:
        write_companions(fitted[0], folder, _most_common(dtypes.values()))
        num_bytes = _write_weights(settings, fitted, parameters, dtypes, folder, progress or _say_nothing)
    num_parameters = sum(parameter.num_elements for parameter in parameters)
    return MergeResult(output, num_parameters, num_bytes, time.monotonic() - started, (*more, *notes))


def plan_parameters(settings: MergeSettings, like: Checkpoint) -> list[Parameter]:
    """Return the parameters of the result with their weights, in the order of the checkpoint ``like``.

    If all weights of a parameter are zero, methods with a base keep the base's values.

    Raises:
        InputError: the weights of a parameter sum to zero where they are normalized or there is no base, or those of
            all parameters are zero.
    """
    num_layers = count_layers(like.tensors)
    parameters = []
    for name, tensor in like.tensors.items():
        weights = weights_of(settings.models, name, find_depth(name, num_layers))
        is_divided = settings.is_normalized and not settings.method.endswith("ties")
        keeps_base = settings.has_task_vectors and not any(weights)
        if not keeps_base and (not any(weights) or (is_divided and abs(sum(weights)) < MIN_WEIGHT_SUM)):
            listed = ", ".join(f"{weight:g}" for weight in weights)
            raise InputError(f"the weights of parameter '{name}' sum to zero ({listed})")
        parameters.append(Parameter(name, tensor.shape, tensor.num_elements, weights))
    if not any(any(parameter.weights) for parameter in parameters):
        raise InputError("the weights of all parameters are zero: nothing would be merged")
    return parameters


def _write_weights(
    settings: MergeSettings,
    sources: Sequence[Checkpoint],
    parameters: Sequence[Parameter],
    dtypes: Mapping[str, torch.dtype],
    folder: Path,
    progress: Progress,
) -> int:
    """Write the shards and return the number of bytes; the base, if there is one, is the last of the sources."""
    num_bytes: dict[str, int] = {
        parameter.name: parameter.num_elements * dtypes[parameter.name].itemsize for parameter in parameters
    }
    total, done = sum(num_bytes.values()), 0
    _check_space(folder, total)
    layout = {parameter.name: (dtypes[parameter.name], parameter.shape) for parameter in parameters}
    writer = Writer(folder, layout, max_shard_bytes=int(settings.run.max_shard_gb * 1e9))

    def finished(parameter: Parameter) -> None:
        nonlocal done
        done += num_bytes[parameter.name]
        progress(done, total)

    scratch = Scratch()
    try:
        with open_reader() as reader:
            reader.open(path for source in sources for path in source.paths())
            stream(
                (_plan_work(settings, sources, each, reader, writer, scratch) for each in parameters),
                num_threads=settings.run.threads or default_num_threads(settings.run.device),
                block_elements=BLOCK_ELEMENTS if settings.run.device == "cpu" else GPU_BLOCK_ELEMENTS,
                finished=finished,
            )
    finally:
        writer.close()
    del scratch
    torch.cuda.empty_cache()  # another process may use the GPU next; does nothing without a GPU
    return total


def _plan_work(
    settings: MergeSettings,
    sources: Sequence[Checkpoint],
    parameter: Parameter,
    reader: Reader,
    writer: Writer,
    scratch: Scratch,
) -> Work:
    name = parameter.name
    stored = [source.tensors[name] for source in sources]
    working = _working_dtype([tensor.dtype for tensor in stored])

    def make_block(start: int, stop: int) -> Block:
        def read(number: int, slot: int = 0) -> Tensor:
            values = scratch.take(f"values {slot}", stop - start, working, settings.run.device)
            raw = scratch.take("raw", stop - start, stored[number].dtype)
            return sources[number].fill(values, reader, raw, name, start)

        return Block(start, stop, read, lambda: read(-1, -1), scratch)

    def write(start: int, values: Tensor) -> None:
        writer.write(name, start, scratch.take("result", values.numel(), writer.dtype_of(name)).copy_(values))

    def prefetch() -> None:
        for tensor in stored:
            reader.prefetch(tensor)

    steps = plan_steps(settings, parameter) if working.is_floating_point else copy_steps()
    return Work(parameter, steps, make_block, write, prefetch)


def _working_dtype(stored: Sequence[torch.dtype]) -> torch.dtype:
    """Return float32 for 16-bit and float64 for 32-bit floats, so that only the final rounding loses precision.

    Integers keep their dtype.
    """
    if not stored[0].is_floating_point:
        return stored[0]
    return torch.float32 if max(dtype.itemsize for dtype in stored) <= 2 else torch.float64


def _output_dtype(stored: torch.dtype, wanted: torch.dtype | None) -> torch.dtype:
    return stored if wanted is None or not stored.is_floating_point else wanted


def _most_common(dtypes: Iterable[torch.dtype]) -> str | None:
    """Return the name of the most common dtype, for the config."""
    counts = Counter(dtype for dtype in dtypes if dtype.is_floating_point)
    return str(counts.most_common(1)[0][0]).removeprefix("torch.") if counts else None


def _check_device(device: str) -> None:
    num_gpus = torch.cuda.device_count()
    if device != "cpu" and (torch.device(device).index or 0) >= num_gpus:
        seen = "no GPU" if num_gpus == 0 else f"the GPUs 0 to {num_gpus - 1}"
        raise InputError(f"device '{device}' was given, but torch sees {seen}; 'cpu' is always allowed")


def _check_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise InputError(
            f"the result needs {num_bytes / 1e9:.1f} GB, but '{folder.parent}' has only {free / 1e9:.1f} GB free"
        )


def _say_nothing(done: int, total: int) -> None:
    pass
