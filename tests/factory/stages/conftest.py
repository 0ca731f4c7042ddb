from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl
import pytest

from factory.engines.base import Reply, Request
from factory.stages.outputs import Provenance, Stage, StageOutput
from schemas.tables import TABLES

Detected = list[tuple[str | None, float]]


@pytest.fixture
def lane() -> Provenance:
    return Provenance(settings_id="5" * 32, model="teacher-7b", model_fingerprint="f" * 32)


@pytest.fixture
def detect() -> Callable[[Sequence[str]], Detected]:
    """Knows a text's language by its first Arabic, Hebrew or Latin letter; of one without any it says nothing."""

    def guess(text: str) -> tuple[str | None, float]:
        for letter in text:
            if "\u0600" <= letter <= "\u06ff":
                return "ar", 0.9
            if "\u0590" <= letter <= "\u05ff":
                return "he", 0.9
            if letter.isascii() and letter.isalpha():
                return "en", 0.9
        return None, 0.0

    return lambda texts: [guess(text) for text in texts]


@pytest.fixture
def run_stage() -> Callable[..., StageOutput]:
    """Send all requests of a stage, answer them in reverse, take what landed in small steps, check the schemas."""

    def run(
        stage: Stage, rows: Iterable[dict[str, Any]], answer: Callable[[Request], Reply], table: str
    ) -> StageOutput:
        requests = list(stage.requests([pl.DataFrame([row]) for row in rows]))
        assert len({request.request_id for request in requests}) == len(requests)
        landed = [stage.take()]
        landed += [stage.take() for request in reversed(requests) if stage.add(answer(request))]
        landed += [stage.take()]
        joined = StageOutput(pl.concat([one.rows for one in landed]), pl.concat([one.rejections for one in landed]))
        TABLES[table].validate(joined.rows)
        TABLES["rejections"].validate(joined.rejections)
        assert stage.take().rows.is_empty()
        return joined

    return run
