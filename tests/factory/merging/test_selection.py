"""The streamed selection against a sort."""

import numpy as np
import pytest
import torch

from factory.merging import selection
from factory.merging.selection import select_largest


def run(tensors: list[torch.Tensor], ranks: list[int], block: int = 1000) -> tuple[list[float], int]:
    """Return what is found, and the number of passes."""
    size = len(tensors[0])
    steps = select_largest(lambda bounds: [tensor[slice(*bounds)] for tensor in tensors], size, ranks)
    bounds = [(start, min(start + block, size)) for start in range(0, size, block)]
    num_passes = 0
    try:
        ask = next(steps)
        while True:
            num_passes += 1
            ask = steps.send(ask.join([ask.measure(each) for each in bounds]))
    except StopIteration as last:
        return last.value, num_passes


@pytest.fixture(autouse=True)
def _small_sample(monkeypatch):
    monkeypatch.setattr(selection, "SAMPLE_SIZE", 1000)


def kinds() -> dict[str, torch.Tensor]:
    size = 40_000
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(size, generator=generator).abs()
    rows = torch.arange(size) // 400
    return {
        "normal": normal,
        "bf16": (normal * 0.01).bfloat16().float(),
        "zeros": torch.zeros(size),
        "one value": torch.full((size,), 0.25),
        "mostly zero": normal * (torch.rand(size, generator=generator) < 0.01),
        "two values": (normal > 1).float(),
        "rows of different scale": normal * 2.0 ** -(rows % 30),
        "sorted": normal.sort().values,
        "periodic": (torch.arange(size) % 61 == 0) * 5.0 + normal * 1e-3,
        "with infinities": torch.where(normal > 2, torch.inf, normal),
        "float64": normal.double() + 1e-12,
    }


@pytest.mark.parametrize("kind", kinds())
def test_it_is_exact(kind):
    values = kinds()[kind]
    ordered = np.sort(values.numpy())[::-1]
    for rank in (1, 2, 399, 4000, 20_000, 36_123, 39_999):
        found, _ = run([values], [rank])
        assert found == [float(ordered[rank - 1])], rank


def test_several_at_once_of_different_ranks():
    tensors = list(kinds().values())[:7]
    ranks = [100 + 5000 * number for number in range(7)]
    found, _ = run(tensors, ranks)
    assert found == [
        float(np.sort(tensor.numpy())[::-1][rank - 1]) for tensor, rank in zip(tensors, ranks, strict=True)
    ]


def test_two_passes_do_for_ordinary_tensors():
    assert run([kinds()["normal"]], [20_000])[1] == 2


def test_a_misleading_sample_costs_passes_and_no_exactness():
    values = torch.rand(40_000, generator=torch.Generator().manual_seed(1))
    values[::61] = 100.0  # all that the sample sees
    found, num_passes = run([values], [20_000], block=61 * 10)
    assert found == [float(np.sort(values.numpy())[::-1][19_999])]
    assert num_passes > 2


def test_small_tensors_take_one_pass():
    values = torch.arange(17.0)
    assert run([values], [3]) == ([14.0], 1)
