import hashlib

import pytest
import torch

from factory.merging.masks import draw_mask

SIZE = 200_000


def draw(
    density: float, start: int = 0, stop: int = SIZE, seed: int = 0, model: str = "a", name: str = "w"
) -> torch.Tensor:
    return draw_mask(seed, model, name, density, start, stop)


def test_blocks_of_any_size_are_parts_of_one_mask():
    whole = draw(0.5)
    for step in (4, 1000, 65_536):
        parts = [draw(0.5, start, min(start + step, 20_000)) for start in range(0, 20_000, step)]
        assert torch.equal(torch.cat(parts), whole[:20_000])
    assert torch.equal(draw(0.5, 100, 101), whole[100:101])


@pytest.mark.parametrize("density", [0.01, 0.3, 0.5, 0.9])
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


def test_the_mask_is_the_same_for_ever():
    """A merge that was published can be made again: this digest never changes."""
    digest = hashlib.sha256(draw(0.5, 0, 4096).numpy().tobytes()).hexdigest()
    assert digest == "89f220c207179a1bb1dab37e5469b29f0f69c348d66787b94b50983312b54b5d"
