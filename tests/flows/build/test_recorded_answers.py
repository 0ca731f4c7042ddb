"""Builds on recorded answers alone: each is joined to the prompt that it was made for, or rejected, run after run."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from factory.inputs import files
from flows.build import source_reading
from flows.build.build_run import BuildSummary
from flows.build.run import execute_build
from flows.build.source_rows import check_listed
from flows.evaluation.evaluate import evaluate
from schemas.errors import InputError
from schemas.recipe.evaluation import EvaluationSettings
from schemas.recipe.recipe import load_recipe
from tests.flows.direct import DirectEngines
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake
from warehouse.lake.migrations import MIGRATIONS

RECIPE = """
name = "{name}"
languages = ["en", "ja", "ar"]
pairs = [{{ strategy = "best_vs_worst" }}]
{sources}
[prompt_gates]
language = false
near_duplicate_similarity = 0
max_chars = 40
[[teachers]]
name = "{teacher}"
engine = "recorded"
[teachers.recorded]
path = "answers.jsonl"
columns = {{ text = "a", key = "id" }}
{recorded}
[gates]
language = false
min_chars = 0
[[reward_models]]
name = "judge"
model = "./reward"
[warehouse]
catalog = "{folder}/lake/catalog.sqlite"
data = "{folder}/lake/data"
[run]
exports = "{folder}/exports"
"""


class Project:
    """A folder with sources, recorded answers and a recipe, whose models are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "reward").mkdir()
        (folder / "reward" / "config.json").write_text("{}")

    def write(self, name: str, *rows: Any) -> None:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (self.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")

    def recipe(self, *, name: str = "small", teacher: str = "archive", recorded: str = "", **sources: str) -> Path:
        usual = 'language = "en"\ncolumns = { prompt = "q", id = "id" }'
        tables = "".join(
            f'[[prompts]]\nname = "{source}"\npath = "{source}.jsonl"\n{more or usual}\n'
            for source, more in sources.items()
        )
        path = self.folder / f"{name}.toml"
        path.write_text(
            RECIPE.format(name=name, teacher=teacher, recorded=recorded, sources=tables, folder=self.folder),
            encoding="utf-8",
        )
        return path

    def build(self, path: Path, **how: Any) -> BuildSummary:
        usual: dict[str, Any] = {"quiet": True, "until": "sample"}
        return execute_build(load_recipe(path), open_engine=DirectEngines(), **usual | how)

    def joined(self, summary: BuildSummary) -> dict[str, str]:
        """Return which question each kept answer of a build answers."""
        with Lake.open(load_recipe(self.folder / f"{summary.name}.toml").warehouse, read_only=True) as lake:
            scope = Scope.open(lake, summary.config_id)
            sql = (
                "SELECT text, messages[-1].content FROM kept_completions AS answers "
                "JOIN prompts ON prompts.prompt_id = answers.prompt_id"
            )
            return dict(scope.query(sql).iter_rows())

    def used(self, summary: BuildSummary) -> set[str]:
        """Return the answers that a build can choose from, and check that it has chosen none but these."""
        with Lake.open(load_recipe(self.folder / f"{summary.name}.toml").warehouse, read_only=True) as lake:
            scope = Scope.open(lake, summary.config_id)
            found = set(scope.query("SELECT text FROM candidates")["text"])
            sql = (
                "SELECT DISTINCT text FROM completions WHERE completion_id IN ("
                "SELECT completion_id FROM selections WHERE config_id = $1 UNION ALL "
                "SELECT unnest([chosen_id, rejected_id]) FROM pairs WHERE config_id = $1)"
            )
            assert set(scope.query(sql, [summary.config_id])["text"]) <= found
        return found

    def rejected(self, summary: BuildSummary) -> dict[str, str]:
        """Return reason and detail of each recorded row that was rejected."""
        with Lake.open(load_recipe(self.folder / f"{summary.name}.toml").warehouse, read_only=True) as lake:
            sql = "SELECT reason, detail FROM rejections WHERE config_id = ? AND settings_id <> '' ORDER BY detail"
            found = lake.query(sql, [summary.config_id]).rows()
        assert len(found) == len({detail for _, detail in found})
        return {detail: reason for reason, detail in found}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


LONG = "اكتب مقالة طويلة عن النهر الذي يمر بالمدينة القديمة"


def test_an_answer_to_a_dropped_row_is_not_joined_to_another_source(project: Project) -> None:
    project.write("a", {"id": 1, "q": "Why is the sky blue?"}, {"id": 2, "q": LONG})
    project.write("b", {"id": 2, "q": "何時ですか"}, {"id": 3, "q": "Who?"})
    project.write(
        "answers", {"id": 1, "a": "a1"}, {"id": 2, "a": "a2"}, {"id": 2, "a": "a2, again"}, {"id": 3, "a": "b3"}
    )
    path = project.recipe(a="", b="")
    for _ in range(2):  # the second run does not read the files of prompts
        summary = project.build(path, until="export")
        assert project.joined(summary) == {"a1": "Why is the sky blue?", "b3": "Who?"}
        rejected = project.rejected(summary)
        assert set(rejected.values()) == {"ambiguous_key"}
        assert "that of row 1 of 'b', that of row 2 of 'a'" in next(iter(rejected))
        counts = {
            row["stage"]: (row["num_in"], row["num_out"], row["num_rejected"]) for row in summary.counts.to_dicts()
        }
        assert (counts["join recorded"], counts["score"]) == ((4, 2, 2), (2, 2, 0))
    summary = project.build(project.recipe(name="named", recorded='source = "a"', a="", b=""))
    assert project.joined(summary) == {"a1": "Why is the sky blue?"}
    assert set(project.rejected(summary).values()) == {"no_such_prompt"}
    assert any(
        "row 2 of 'a', was dropped or is not in scope: too_long" in detail for detail in project.rejected(summary)
    )


BY_ROW = 'columns = { prompt = "q", id = "id", language = "l" }'


def count(summary: BuildSummary) -> dict[str, tuple[int, int, int]]:
    """Return how many rows went into each stage, came out and were rejected; none is left over."""
    assert not summary.counts.filter(stage="score", num_pending=0).is_empty()
    assert summary.counts.filter((pl.col("num_pending") != 0) & (pl.col("stage") != "route")).is_empty()
    return {row[0]: row[1:4] for row in summary.counts.iter_rows()}


def test_rows_in_languages_that_are_none_of_the_recipes_are_rejections(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"en": "Why?", "ar": "لماذا؟", "fr": "Pourquoi ?", "zh-Hant": "為什麼?"}
    project.write("a", *({"id": number, "q": text, "l": code} for number, (code, text) in enumerate(asked.items())))
    project.write("answers", *({"id": number, "a": f"a{number}"} for number in range(4)))
    path = project.recipe(a=BY_ROW)
    sql = "SELECT stage, reason, detail, language FROM rejections ORDER BY stage, language, detail"
    for _ in range(2):
        summary = project.build(path, until="export", quiet=False)
        assert project.joined(summary) == {"a0": "Why?", "a1": "لماذا؟"}
        counts = count(summary)
        assert counts["read prompts"] == (4, 4, 0)
        assert counts["gate prompts"] == (4, 2, 2)
        assert counts["join recorded"] == (4, 2, 2)
        with Lake.open(load_recipe(path).warehouse) as lake:
            assert lake.query(sql).rows() == [
                *(
                    ("prompt_gate", "other_language", f"in {code}; the recipe's languages are en, ja, ar", code)
                    for code in ("fr", "zh-Hant")
                ),
                *(
                    (
                        "read",
                        "no_such_prompt",
                        f"answers.jsonl:{at + 1}: the prompt with the source_row '{at}', that of row {at + 1} of 'a', was "
                        f"dropped or is not in scope: other_language: in {code}; the recipe's languages are en, ja, ar",
                        None,
                    )
                    for at, code in ((2, "fr"), (3, "zh-Hant"))
                ),
            ]
            lake.delete("rejections", "reason = 'other_language'")  # as in a warehouse of before
    said = capsys.readouterr().err
    assert "read · archive: 2 new completions, 2 rejected" in said
    assert "gate · prompts: 2 rejected" in said


def test_recorded_answers_in_languages_that_are_none_of_their_teachers_are_rejections(project: Project) -> None:
    asked = {"en": "Why?", "ar": "لماذا؟"}
    project.write("a", *({"id": number, "q": text, "l": code} for number, (code, text) in enumerate(asked.items())))
    project.write("answers", {"id": 0, "a": "a0"}, {"id": 1, "a": "a1"}, {"id": 1, "a": "a1, again"})
    path = project.recipe(a=BY_ROW)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('engine = "recorded"', 'engine = "recorded"\nlanguages = ["en"]'), encoding="utf-8")
    for _ in range(2):
        summary = project.build(path, until="export")
        assert project.joined(summary) == {"a0": "Why?"}
        assert project.rejected(summary) == {
            f"answers.jsonl:{line}: it answers a prompt in ar; the teacher's languages are en": "other_language"
            for line in (2, 3)
        }
        assert count(summary)["gate prompts"] == (2, 2, 0)
        assert count(summary)["join recorded"] == (3, 1, 2)


def test_prompts_that_no_teacher_answers_are_said(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.write("a", {"id": 0, "q": "Why?", "l": "en"}, {"id": 1, "q": "何故?", "l": "ja"})
    project.write("answers", {"id": 0, "a": "a0"})
    path = project.recipe(a=BY_ROW)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('engine = "recorded"', 'engine = "recorded"\nlanguages = ["en"]'), encoding="utf-8")
    project.build(path, quiet=False)
    assert "  warning: no teacher answers the prompts in ja (1)\n" in capsys.readouterr().err


def test_ids_beyond_a_limit_are_known(project: Project) -> None:
    project.write("a", *({"id": number % 4, "q": f"Number {number}?"} for number in range(6)))
    project.write("answers", *({"id": number, "a": f"a{number}"} for number in range(5)))
    summary = project.build(project.recipe(a=""), limit=3)
    assert project.joined(summary) == {"a2": "Number 2?"}
    reasons = sorted(project.rejected(summary).values())
    assert reasons == ["ambiguous_key"] * 2 + ["no_such_prompt"] * 2
    assert any(
        "'3', that of row 4 of 'a', was dropped or is not in scope: it lies beyond the limit" in detail
        for detail in project.rejected(summary)
    )
    assert project.joined(project.build(project.recipe(a=""))) == {"a2": "Number 2?", "a3": "Number 3?"}


def test_rows_without_an_id_are_not_known_by_their_place(project: Project) -> None:
    project.write("a", {"id": 3, "q": "Three?"}, {"id": None, "q": "None?"}, {"id": "", "q": "Empty?"})
    project.write("answers", {"id": 2, "a": "a2"}, {"id": 3, "a": "a3"})
    summary = project.build(project.recipe(a=""))
    assert project.joined(summary) == {"a3": "Three?"}
    with Lake.open(load_recipe(project.folder / "small.toml").warehouse, read_only=True) as lake:
        rows = lake.query("SELECT messages[1].content, source_row FROM prompts ORDER BY 1").rows()
    assert rows == [("Empty?", None), ("None?", None), ("Three?", "3")]
    project.write("answers", {"id": 2, "a": "b2"}, {"id": 3, "a": "b3"})
    summary = project.build(project.recipe(name="places", a='language = "en"\ncolumns = { prompt = "q" }'))
    assert project.joined(summary) == {"b2": "None?", "b3": "Empty?"}


def test_a_prompt_that_has_gone_from_its_source_keeps_its_answers_and_its_id(project: Project) -> None:
    project.write("a", {"id": 1, "q": "One?"}, {"id": 2, "q": "Two?"})
    project.write("answers", {"id": 1, "a": "a1"}, {"id": 2, "a": "a2"})
    path = project.recipe(a="")
    project.build(path)
    project.write("a", {"id": 1, "q": "One?"}, {"id": 3, "q": "Three?"})
    assert project.joined(project.build(path)) == {"a1": "One?", "a2": "Two?"}
    project.write("a", {"id": 1, "q": "One?"}, {"id": 2, "q": "Another two?"})
    summary = project.build(path)
    assert project.joined(summary) == {"a1": "One?"}  # row 2 is of two prompts now, and its answer may be either's
    assert list(project.rejected(summary).values()) == ["ambiguous_key"] * 2
    summary = project.build(project.recipe(teacher="archive, again", a=""))
    assert project.joined(summary)["a1"] == "One?"
    assert "a2" in project.joined(summary)  # of another build, which never had the old row
    assert project.joined(summary)["a2"] == "Another two?"


def test_an_answer_that_no_row_joins_any_more_is_a_rejection_and_the_others_stay(project: Project) -> None:
    """As on a warehouse of before, where the answer to row-1 was joined to the first of two rows with that id."""
    rows = [{"id": "row-1", "q": "ما هو الوقت؟"}, {"id": "row-2", "q": "何時ですか"}]
    project.write("a", *rows)
    project.write("answers", *({"id": row["id"], "a": f"{row['id']} {at}"} for row in rows for at in "AB"))
    path = project.recipe(a="")
    before = project.build(path, until="export")
    assert len(project.joined(before)) == 4
    assert project.used(before) == {"row-1 A", "row-1 B", "row-2 A", "row-2 B"}
    project.write("a", *rows, {"id": "row-1", "q": ""})
    for _ in range(2):
        summary = project.build(path, until="export")
        assert project.joined(summary) == dict.fromkeys(["row-2 A", "row-2 B"], "何時ですか")
        assert project.used(summary) == {"row-2 A", "row-2 B"}
        assert summary.num_sent == 0
        rejected = project.rejected(summary)
        assert list(rejected.values()) == ["ambiguous_key"] * 4
        stored = [detail for detail in rejected if detail.startswith("no row joins this answer any more; ")]
        assert [detail.split("; ", 1)[1] for detail in stored] == [d for d in rejected if d not in stored]
        counts = {
            row["stage"]: (row["num_in"], row["num_out"], row["num_rejected"]) for row in summary.counts.to_dicts()
        }
        assert (counts["join recorded"], counts["score"]) == ((4, 2, 2), (2, 2, 0))


def test_an_answer_that_another_row_joins_now_is_a_rejection(project: Project) -> None:
    """Two builds of one teacher, whose sources give one id to different prompts and have these prompts in common."""
    project.write("a", {"id": 1, "q": "One?"}, {"id": 2, "q": "Two?"})
    project.write("b", {"id": 2, "q": "One?"}, {"id": 1, "q": "Two?"}, {"id": 3, "q": "Three?"})
    project.write("answers", {"id": 1, "a": "a1"}, {"id": 3, "a": "a3"})
    assert project.joined(project.build(project.recipe(a=""))) == {"a1": "One?"}
    summary = project.build(project.recipe(name="other", b=""))
    assert project.joined(summary) == {"a1": "Two?", "a3": "Three?"}
    assert project.rejected(summary) == {"no row gives this answer to its prompt any more": "no_such_prompt"}
    assert project.joined(project.build(project.recipe(a=""))) == {"a1": "One?"}


def test_answers_whose_numbers_have_moved_are_refused(project: Project) -> None:
    rows = [{"id": 1, "q": "One?"}, {"id": 2, "q": "One?"}]
    project.write("a", *rows)
    project.write("answers", {"id": 1, "a": "a1"}, {"id": 2, "a": "a2"})
    path = project.recipe(a="")
    assert project.joined(project.build(path)) == {"a1": "One?", "a2": "One?"}
    project.write("a", *rows, {"id": 1, "q": "Another one?"})
    refused = (
        r"recorded answers of 'archive' \(1 of them, the first to prompt [0-9a-f]+\) now stand where others stood: the "
        r"sources, or the rules by which answers are joined to them, have changed since; give the teacher another name"
    )
    with pytest.raises(InputError, match=refused):
        project.build(path)


def test_a_warehouse_of_before_lists_the_rows_when_it_is_read_again(project: Project) -> None:
    project.write("a", {"id": 1, "q": "One?"}, {"id": 2, "q": LONG})
    project.write("b", {"id": 2, "q": "Two?"})
    project.write("answers", {"id": 1, "a": "a1"}, {"id": 2, "a": "a2"})
    path = project.recipe(a="", b="")
    project.build(path)
    with Lake.open(load_recipe(path).warehouse) as lake:
        (migration,) = (found for found in MIGRATIONS if "source_rows" in found[0])
        for statement in ("DROP TABLE source_rows", *migration):
            lake.transact(lambda cursor, statement=statement: cursor.execute(statement))
    summary = project.build(path)
    assert project.joined(summary) == {"a1": "One?"}
    assert list(project.rejected(summary).values()) == ["ambiguous_key"]


def test_rows_that_a_build_has_counted_otherwise_are_read_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a release that counted the lines of a file, blank ones too."""
    project.write("a", {"q": "One?"}, {"q": "Two?"})
    file = project.folder / "a.jsonl"
    file.write_text(file.read_text().replace("\n", "\n\n"))
    project.write("answers", {"id": 2, "a": "a2"})
    path = project.recipe(a='language = "en"\ncolumns = { prompt = "q" }')
    with monkeypatch.context() as before:
        before.setattr(source_reading, "_COUNTED", "lines")
        before.setattr(files, "_read_lines", count_lines)
        assert project.joined(project.build(path)) == {}
    assert project.joined(project.build(path)) == {"a2": "Two?"}


def count_lines(lines: Iterable[str]) -> Iterator[Any]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, str(number), json.loads(line), None


def test_a_file_of_which_little_can_be_joined_is_a_warning(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.write("a", {"id": 1, "q": "One?"})
    project.write("answers", {"id": 1, "a": "a1"}, *({"id": f"q-{number}", "a": "x"} for number in range(10)))
    project.build(project.recipe(a=""), quiet=False)
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert said == [
        "  warning: archive: only 1 of 11 recorded answers could be joined to a prompt; 10 are no_such_prompt, such as "
        "answers.jsonl:2: no prompt in scope has the source_row 'q-0'"
    ]
    project.write("answers", {"id": 1, "a": "a1"}, *({"id": f"q-{number}", "a": "x"} for number in range(9)))
    project.build(project.recipe(a=""), quiet=False)
    assert "warning" not in capsys.readouterr().err


def play(project: Project, *, build: str = "small") -> tuple[int, dict[str, str]]:
    """Let two files of recorded answers play on a build's held-out prompts.

    Return how many answers of a model have played, and which rows and answers were rejected, and why.
    """
    contestants = {
        name: {
            "name": name,
            "engine": "recorded",
            "recorded": {"path": str(project.folder / f"{name}.jsonl"), "columns": {"text": "a", "key": "id"}},
        }
        for name in ("first", "second")
    }
    judge = {"reward": {"name": "judge", "model": str(project.folder / "reward")}}
    table = {"languages": ["en"], "build": build, "judge": judge, "bootstrap_rounds": 2}
    settings = EvaluationSettings.model_validate(table | {"a": contestants["first"], "b": contestants["second"]})
    warehouse = load_recipe(project.folder / f"{build}.toml").warehouse
    result = evaluate(settings, warehouse, quiet=True, open_engine=DirectEngines())
    with Lake.open(warehouse, read_only=True) as lake:
        found = lake.query("SELECT detail, reason FROM rejections WHERE model IN ('first', 'second')")
    num_played = result.answers.filter(model="first", language="en")["num_answers"].item()
    games = result.rates.filter(language="en").select("num_wins", "num_losses", "num_ties")
    assert games.sum_horizontal().item() == num_played
    return int(num_played), dict(found.iter_rows())


def test_recorded_answers_play_on_a_builds_prompts_by_the_rows_of_its_sources(project: Project) -> None:
    """The build has no recorded answers itself: it knows the rows that it has read, and that there are more of them."""
    held_out = 'language = "en"\neval_percent = 100\ncolumns = { prompt = "q", id = "id" }'
    project.write("a", {"id": 1, "q": "One?"}, {"id": 2, "q": LONG}, {"id": 3, "q": "Three?"})
    project.write("b", {"id": 2, "q": "Two?"})
    for name in ("first", "second"):
        project.write(name, *({"id": number, "a": f"{name} {number}"} for number in (1, 2, 3)))
    path = project.recipe(a=held_out, b=held_out)
    text = path.read_text(encoding="utf-8")
    before, rest = text.split('engine = "recorded"')
    path.write_text(f'{before}model = "./reward"\n{rest[rest.index("[gates]") :]}', encoding="utf-8")
    project.build(path, until="read")
    num_played, rejected = play(project)
    assert num_played == 2
    assert sorted(rejected.values()) == ["ambiguous_key"] * 2
    assert all("that of row 1 of 'b', that of row 2 of 'a'" in detail for detail in rejected)
    project.write("a", {"id": 1, "q": "One?"}, {"id": 2, "q": LONG}, {"id": 3, "q": "Three?"}, {"id": 3, "q": ""})
    project.build(path, until="read")
    num_played, rejected = play(project)
    assert num_played == 1
    assert sorted(rejected.values()) == ["ambiguous_key"] * 6  # of each: rows 2 and 3, and the answer to row 3
    limited = path.read_text(encoding="utf-8").replace('name = "small"', 'name = "limited"')
    limited = limited.replace('path = "a.jsonl"', 'path = "a.jsonl"\nlimit = 1')
    (project.folder / "limited.toml").write_text(limited, encoding="utf-8")
    summary = project.build(project.folder / "limited.toml", until="read")
    with pytest.raises(InputError, match=r"knows its sources up to a limit only, .* raise the limit"):
        play(project, build="limited")
    project.write("answers", {"id": 1, "a": "a1"})
    whole = project.build(project.recipe(name="whole", a=f"{held_out}\nlimit = 1"), until="read")
    with Lake.open(load_recipe(path).warehouse) as lake:
        check_listed(lake, whole.config_id)  # it has recorded answers, so all rows are listed
        assert lake.query("SELECT count(*) FROM source_rows WHERE config_id = ?", [whole.config_id]).item() == 4
        lake.delete("source_rows", "config_id = ?", [summary.config_id])
    with pytest.raises(InputError, match=r"does not know the rows of the sources of build .*: run its recipe again"):
        play(project, build="limited")
