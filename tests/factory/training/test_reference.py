"""The reference's pass: whatever ends it, the next one goes on from there and finds the same."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from factory.training.run import reference
from factory.training.run.reference import ReferencePass
from factory.training.trainer import train
from schemas.errors import TrainingError
from schemas.recipe.training import TrainSettings
from tests.factory.training.conftest import pairs, write_rows
from tests.factory.training.test_processes import fork
from tests.factory.training.test_trainer import settings


@pytest.fixture
def chosen(llama: Path, tmp_path: Path) -> TrainSettings:
    data = write_rows(tmp_path / "pairs.jsonl", pairs(40))
    run = {"micro_batch_tokens": 100, "cache": str(tmp_path / "cache")}
    return settings(llama, data, max_steps=1, run=run)


def watch_batches(patch: pytest.MonkeyPatch, act: Callable[[int], None] = lambda _: None) -> list[int]:
    """Note the tokens of each turn of a pass, and then do something that depends on their number."""
    found: list[int] = []
    compute = ReferencePass._compute

    def note(self: ReferencePass, batches: list[list[int]]) -> int:
        found.append(compute(self, batches))
        act(len(found))
        return found[-1]

    patch.setattr(ReferencePass, "_compute", note)
    return found


def whole_pass(chosen: TrainSettings, folder: Path) -> tuple[int, np.ndarray]:
    """Return the number of tokens of a pass that nothing ends, and what it finds."""
    cache = folder / "whole"
    with pytest.MonkeyPatch.context() as patch:
        tokens = watch_batches(patch)
        run = chosen.run.model_copy(update={"cache": str(cache)})
        train(chosen.model_copy(update={"run": run}), folder / "first", quiet=True)
    assert len(tokens) == 10
    return sum(tokens), read_cache(cache)


def read_cache(folder: Path) -> np.ndarray:
    (file,) = folder.iterdir()
    assert file.suffix == ".npy"
    return np.load(file)


def test_a_pass_that_a_signal_ends_goes_on(chosen, tmp_path, monkeypatch):
    num_tokens, expected = whole_pass(chosen, tmp_path)
    with monkeypatch.context() as patch:
        before = watch_batches(patch, lambda count: os.kill(os.getpid(), signal.SIGINT) if count == 4 else None)
        said = r"^SIGINT stopped the reference's pass after \d+ of 40 rows; the same command resumes from there$"
        with pytest.raises(TrainingError, match=said):
            train(chosen, tmp_path / "run", quiet=True)
    assert len(before) == 4
    after = watch_batches(monkeypatch)
    train(chosen, tmp_path / "run", quiet=True)
    assert sum(before) + sum(after) == num_tokens
    np.testing.assert_allclose(read_cache(tmp_path / "cache"), expected, rtol=1e-4, atol=1e-5)


def test_a_pass_that_is_killed_goes_on_from_what_was_kept(chosen, tmp_path, monkeypatch):
    num_tokens, expected = whole_pass(chosen, tmp_path)
    monkeypatch.setattr(reference, "KEEP_SECONDS", -1.0)

    def die(count: int) -> None:
        if count == 4:
            os._exit(9)

    def train_in_two() -> None:
        with pytest.MonkeyPatch.context() as patch:
            watch_batches(patch, die)
            train(chosen, tmp_path / "run", quiet=True)

    with pytest.raises(AssertionError, match=r"\[9, 9\]"):
        fork(train_in_two)
    after = watch_batches(monkeypatch)
    train(chosen, tmp_path / "run", quiet=True)
    assert 0.35 * num_tokens < sum(after) < 0.45 * num_tokens  # three turns, of two batches each, were kept
    np.testing.assert_allclose(read_cache(tmp_path / "cache"), expected, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_begun_again(chosen, tmp_path, monkeypatch):
    num_tokens, expected = whole_pass(chosen, tmp_path)
    name = next((tmp_path / "whole").iterdir()).stem
    (tmp_path / "cache").mkdir()
    np.save(tmp_path / "cache" / "short.npy", expected[:-1])
    (tmp_path / "cache" / "short.npy").rename(tmp_path / "cache" / f"{name}.begun")
    after = watch_batches(monkeypatch)
    train(chosen, tmp_path / "run", quiet=True)
    assert sum(after) == num_tokens
    np.testing.assert_array_equal(read_cache(tmp_path / "cache"), expected)


def test_a_pass_whose_results_cannot_be_kept_says_so(chosen, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    watch_batches(monkeypatch, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(
        TrainingError, match=r"^SIGTERM .* the same command starts again, as the results could not be saved$"
    ):
        train(chosen, tmp_path / "run", quiet=True)
