"""What a plan says where there is nothing to ask, and why there is not."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.build.plan import make_plan, print_plan
from flows.build.run import execute_build
from schemas.errors import InputError, RecipeError
from schemas.recipe.recipe import load_recipe
from tests.flows.standin import StandInEngines

RECORDED = """[[teachers]]
name = "old"
engine = "recorded"
recorded = { path = "old.jsonl", columns = { text = "a", key = "id" } }
"""


@pytest.fixture
def engines(tmp_path: Path) -> StandInEngines:
    return StandInEngines(tmp_path / "asked.log", batch=32, seconds=0.0, max_in_flight=64)


@pytest.fixture
def write(write_recipe: Any, tmp_path: Path) -> Any:
    """Write a recipe without a translator; recorded answers stand in for the teachers, or beside them."""

    def write(*, teachers: tuple[str, ...] = (), recorded: str = RECORDED, languages: str = "") -> Path:
        path = write_recipe(languages=("en", "he"), teachers=teachers or ("north",))
        (tmp_path / "old.jsonl").write_text(
            "\n".join(json.dumps({"id": f"row-{number}", "a": f"A river: {number}"}) for number in range(3)),
            encoding="utf-8",
        )
        text = path.read_text()
        begin, end = text.index("[translation]"), text.index("[[teachers]]")
        text = text[:begin] + recorded + text[end:]
        if not teachers:
            text = text[: text.index('[[teachers]]\nname = "north"')] + text[text.index("[gates]") :]
        path.write_text(text.replace('model = "./models/north"', f'model = "./models/north"\n{languages}'))
        return path

    return write


def say(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    print_plan(load_recipe(path))
    return capsys.readouterr().out


def test_recorded_answers_are_not_asked_for(write, engines, capsys):
    path = write()
    said = say(path, capsys)
    assert "no teacher is asked for answers: all of them are recorded; the prompts are 40 of questions" in said
    assert "the recorded answers of old have not been read" in said
    assert "hold no prompt" not in said
    assert "nothing is left to send" not in said
    execute_build(load_recipe(path), open_engine=engines, until="sample", quiet=True)
    said = say(path, capsys)
    assert "3 rows to send" in said
    assert "have not been read" not in said
    execute_build(load_recipe(path), open_engine=engines, until="score", quiet=True)
    said = say(path, capsys)
    assert "nothing is left to send: all that the recipe asks for is answered" in said
    assert "0 rows to send, about 0 tokens; 3 are answered already" in said


def test_a_teacher_of_other_languages_is_named_with_its_own_and_those_of_the_prompts(write, capsys):
    said = say(write(teachers=("north",), recorded="", languages='languages = ["he"]'), capsys)
    assert "north is asked for nothing: it answers in he, and the prompts are in en" in said
    assert "recorded" not in said


def test_sources_without_prompts_are_said_to_have_none(write, capsys, tmp_path):
    path = write(teachers=("north",), recorded="")
    (tmp_path / "prompts.jsonl").write_text('{"id": "1", "q": ""}\n', encoding="utf-8")
    said = say(path, capsys)
    assert (
        said
        == "nothing can be asked: the sources hold no prompt; a run keeps each row with its reason in 'rejections'\n"
    )


def test_what_is_asked_beside_recorded_answers_is_planned(write, capsys):
    said = say(write(teachers=("north",)), capsys)
    assert "the recorded answers of old have not been read" in said
    assert "no teacher is asked" not in said
    assert "80 rows to send" in said  # 40 answers, and their scores


def test_texts_translated_by_sentence_are_said_to_be_counted_once(write_recipe, capsys):
    path = write_recipe(languages=("en", "he"))
    assert "is counted once, and is a request for each sentence" in say(path, capsys)


def test_a_policy_is_made_of_recorded_answers_too(write, capsys, tmp_path):
    path = write()
    policy = '[policy]\nbase = "./models/reward"\n[[policy.steps]]\nname = "sft"\ntrain = { objective = "sft" }\n'
    path.write_text(path.read_text() + policy, encoding="utf-8")
    assert say(path, capsys).endswith("then sft: sft, one model\n")


def test_columns_of_recorded_answers_that_are_not_there_are_refused(write):
    with pytest.raises(
        InputError, match=r"small\.toml:\d+: teachers\.old\.recorded\.path: no row of .*'nokey'; there are"
    ):
        make_plan(load_recipe(write(recorded=RECORDED.replace('key = "id"', 'key = "nokey"'))))


def test_sql_of_the_users_own_is_bound(write, tmp_path):
    (tmp_path / "own.sql").write_text("SELECT a.nope FROM candidates a")
    path = write(teachers=("north",), recorded="")
    path.write_text(path.read_text() + '[routing]\nmethod = "sql"\nsql = "own.sql"\n')
    said = rf"small\.toml:\d+: routing\.sql: the SELECT of {tmp_path}/own\.sql cannot be run: line 1: Binder Error: .*nope\"$"
    with pytest.raises(RecipeError, match=said):
        make_plan(load_recipe(path))
