import hashlib

import pytest
import torch

from factory.merging.masks import draw_mask

SIZE = 200_000


def draw(
    density: float, start: int = 0, stop: int = SIZE, seed: int = 0, model: str = "a", name: str = "w"
) -> torch.Tensor:
    return draw_mask(seed, model, name, density, start, stop)


@pytest.mark.parametrize("density", [0.5, 0.3, 0.75])
def test_blocks_of_any_size_are_parts_of_one_mask(density):
    whole = draw(density)
    for step in (64, 960, 65_536):
        parts = [draw(density, start, min(start + step, 20_000)) for start in range(0, 20_000, step)]
        assert torch.equal(torch.cat(parts), whole[:20_000])
    assert torch.equal(draw(density, 128, 129), whole[128:129])


@pytest.mark.parametrize("density", [0.0001, 0.01, 0.3, 0.5, 0.75, 0.9])
def test_the_density_is_kept(density):
    share = draw(density).double().mean().item()
    assert abs(share - density) < 5 * (density * (1 - density) / SIZE) ** 0.5


def test_all_or_nothing():
    assert draw(1.0).min() == 1
    assert draw(0.0).max() == 0


def test_seed_model_and_parameter_each_make_another_mask():
    first = draw(0.5).double() * 2 - 1
    for other in (draw(0.5, seed=1), draw(0.5, model="b"), draw(0.5, name="v"), draw(0.5, model="aw", name="")):
        assert abs((first * (other.double() * 2 - 1)).mean().item()) < 5 / SIZE**0.5


@pytest.mark.parametrize(
    ("density", "digest"),
    [
        (0.5, "e2c6133062d3394fa12992a679f561619e363e39931548ea25dab48d85a2c08d"),
        (0.3, "312b3ee239c36dfb4bd54e33748d9e71bcecdcc85a2e1b7f80cfe33d9b504df0"),
    ],
)
def test_the_mask_is_the_same_for_ever(density, digest):
    """A merge that was published can be made again: these digests never change."""
    assert hashlib.sha256(draw(density, 0, 4096).numpy().tobytes()).hexdigest() == digest
