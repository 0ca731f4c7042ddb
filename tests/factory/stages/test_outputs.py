"""What has landed in small frames is committed in larger ones, with nothing lost and nothing moved."""

from collections.abc import Iterator

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from factory.engines.base import Failure
from factory.stages.outputs import StageOutput, gather, make_frame, make_rejection
from schemas.reasons import Reason


def land(num_parts: int, *, chars: int = 10) -> Iterator[StageOutput]:
    for part in range(num_parts):
        rows = [
            {"prompt_id": f"{part}-{row}", "messages": [{"role": "user", "content": "é" * chars}]} for row in range(9)
        ]
        rejection = make_rejection(f"{part}", "read", Failure(Reason.EMPTY_PROMPT, "no text"), config_id="c")
        yield StageOutput(make_frame("prompts", rows), make_frame("rejections", [rejection]))


@pytest.mark.parametrize(
    ("limits", "sizes"), [({"commit_rows": 25}, [27, 27, 9]), ({"commit_mb": 0.1}, [18, 18, 18, 9])]
)
def test_small_frames_are_joined_by_rows_or_by_size(limits: dict[str, float], sizes: list[int]) -> None:
    parts = list(gather(land(7, chars=3000), **limits))  # type: ignore[arg-type]
    assert [part.rows.height for part in parts] == sizes
    for name in ("rows", "rejections"):
        whole = pl.concat([getattr(part, name) for part in land(7, chars=3000)])
        assert_frame_equal(pl.concat([getattr(part, name) for part in parts]), whole)


def test_nothing_makes_no_commit() -> None:
    assert list(gather(iter(()))) == []
