"""What of a model's settings makes its answers other answers."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.identity import teacher_lane
from schemas.errors import InputError
from schemas.models import ModelRun, Teacher


def settings_id(**changes: Any) -> str:
    run = {"urls": ["http://one:8000/v1"]} | changes.pop("run", {})
    return teacher_lane(Teacher(name="t", engine="openai", model="m", run=run, **changes), ("en",)).settings_id


def test_how_a_model_is_executed_is_no_part_of_its_identity() -> None:
    assert settings_id() == settings_id(run={"engine_args": {"enforce_eager": True, "max_num_seqs": 8}})


def test_further_arguments_and_the_system_prompt_are() -> None:
    ids = {
        settings_id(),
        settings_id(system_prompt="Be brief."),
        settings_id(engine_args={"rope_theta": 1.0}),
        settings_id(engine_args={"rope_theta": 2.0}),
    }
    assert len(ids) == 4


def test_ids_from_before_there_were_further_arguments_hold() -> None:
    assert settings_id(engine_args={}) == "60c059978f5f17f013014d3c1181ffab"


@pytest.mark.parametrize(("name", "place"), [("quantization", "quantization"), ("hf_overrides", "engine_args")])
def test_what_may_change_answers_is_refused_in_run(name: str, place: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}' may change answers.*set '{place}' beside 'model'"):
        ModelRun(engine_args={name: "x"})


@pytest.mark.parametrize(
    ("pattern", "file"),
    [
        ("a.jsonl", "a.jsonl"),
        ("*.jsonl", "a.jsonl"),
        ("a[1].jsonl", "a[1].jsonl"),
        ("*/a.jsonl", "x/a.jsonl"),
        ("x[1]/*.jsonl", "x[1]/a.jsonl"),
    ],
)
def test_recorded_answers_are_known_by_the_bytes_of_their_files(tmp_path: Path, pattern: str, file: str) -> None:
    recorded = {"path": str(tmp_path / pattern), "columns": {"text": "t", "key": "k"}}
    teacher = Teacher.model_validate({"name": "r", "engine": "recorded", "recorded": recorded})
    with pytest.raises(InputError, match="no file at"):
        teacher_lane(teacher, ("en",))
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    fingerprints = []
    for content in ("one", "two", "one"):
        path.write_text(content, encoding="utf-8")
        fingerprints.append(teacher_lane(teacher, ("en",)).fingerprint)
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]
