"""Whole evaluations over a real lake, with engines in this process that answer by rule."""

import json
import os
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from factory.engines.base import Failure, Reply, Request
from flows import cli
from flows.build.run import execute_build
from flows.evaluation import evaluate as evaluation_flow
from flows.evaluation import winrate as evaluation_report
from flows.evaluation.evaluate import EvaluationResult, evaluate
from flows.evaluation.winrate import find_settings
from schemas.errors import BuildStoppedError, FactoryError, InputError, RecipeError
from schemas.languages import LANGUAGES
from schemas.reasons import Reason
from schemas.recipe.evaluation import EvaluationSettings
from schemas.recipe.models import Model, NamedWriter, RewardModel
from schemas.recipe.recipe import load_recipe
from schemas.recipe.settings import WarehouseSettings
from schemas.tables import TABLES
from schemas.toml.toml_file import load_table
from tests.factory.engines.scripted_server import ScriptedServer, completion
from tests.flows.direct import DirectEngines
from warehouse.lake.lake import Lake

WORDS = {"en": "river", "ar": "نهر", "he": "נהר", "ja": "川", "ko": "강"}
NUM_PROMPTS = 6


class Engines:
    """Opens engines: models answer with their name and a number of words; the judge says what ``verdict`` says."""

    def __init__(self, verdict=None, *, stop_after: int | None = None) -> None:
        self.asked: Counter[str] = Counter()
        self.prompts: list[tuple[str, ...]] = []
        self.verdict = verdict
        self.stop_after = stop_after
        self.fails = False

    def __call__(self, model: Model, task: str, *, devices=(), stop: threading.Event | None = None) -> "Engine":
        return Engine(self, model, task, stop)


class Engine:
    def __init__(self, engines: Engines, model: Model, task: str, stop: threading.Event | None) -> None:
        self.engines, self.model, self.task, self.stop = engines, model, task, stop

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            assert isinstance(self.model, NamedWriter | RewardModel)
            name = self.model.name
            self.engines.asked[name] += 1
            yield self.answer(request, name)
            if self.engines.stop_after == sum(self.engines.asked.values()):
                self.stop.set()
                return

    def answer(self, request: Request, name: str) -> Reply:
        text = request.messages[-1]["content"]
        if self.task == "score":
            return Reply(request.request_id, score=float(len(text)))
        if name == "judge":
            self.engines.prompts.append(tuple(message["content"] for message in request.messages))
            if self.engines.fails:
                return Reply(request.request_id, failure=Failure(Reason.TIMEOUT, "too slow"))
            return Reply(request.request_id, text=self.engines.verdict(text), finish_reason="stop")
        words = " ".join([text.split()[-1]] * (7 if name == "long" else 5))
        return Reply(request.request_id, text=f"{name} {words}", finish_reason="stop", num_completion_tokens=5)


def prefer_long(shown: str) -> str:
    """The judge's reply that is right: the answer of the model named long is better."""
    first, second = shown.index("long "), shown.index("short ")
    return json.dumps({"reason": "…", "verdict": "A" if first < second else "B"})


@dataclass(frozen=True)
class Played:
    """An evaluation that has been run: tests that add to its lake do not disturb one another."""

    settings: EvaluationSettings
    warehouse: WarehouseSettings
    engines: Engines
    result: EvaluationResult


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> Played:
    folder = tmp_path_factory.mktemp("played")
    settings, warehouse, engines = write_settings(folder), place_warehouse(folder), Engines(prefer_long)
    return Played(settings, warehouse, engines, evaluate(settings, warehouse, quiet=True, open_engine=engines))


@pytest.fixture
def settings(tmp_path: Path) -> EvaluationSettings:
    return write_settings(tmp_path)


@pytest.fixture
def warehouse(tmp_path: Path) -> WarehouseSettings:
    return place_warehouse(tmp_path)


def place_warehouse(folder: Path) -> WarehouseSettings:
    return WarehouseSettings(catalog=str(folder / "lake/catalog.sqlite"), data=str(folder / "lake/data"))


def write_settings(folder: Path) -> EvaluationSettings:
    rows = [
        {"id": f"{number}", "language": language, "q": f"{word} {number}: {word}"}
        for number in range(NUM_PROMPTS)
        for language, word in WORDS.items()
    ]
    (folder / "prompts.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    for name in ("long", "short", "judge", "reward"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"name": name}))
    (folder / "evaluation.toml").write_text(
        """
[evaluation]
name = "small"
languages = ["en", "ar", "he", "ja"]
bootstrap_rounds = 50
a = { name = "long", model = "./long" }
b = { name = "short", model = "./short" }
judge = { llm = { name = "judge", model = "./judge" } }
[evaluation.prompts]
name = "rivers"
path = "prompts.jsonl"
columns = { prompt = "q", id = "id", language = "language" }
"""
    )
    return load_table(folder / "evaluation.toml", "evaluation", EvaluationSettings)


def change(settings: EvaluationSettings, **changes: object) -> EvaluationSettings:
    return EvaluationSettings.model_validate(settings.model_dump() | changes)


def with_judge(settings: EvaluationSettings, **judge: object) -> EvaluationSettings:
    return change(settings, judge=settings.judge.model_dump() | judge)


def read(warehouse: WarehouseSettings, table: str) -> pl.DataFrame:
    with Lake.open(warehouse, read_only=True) as lake:
        return lake.query(f"FROM {table}")


def rows_of(result: EvaluationResult) -> dict[str, dict]:
    return {row["language"]: row for row in result.rates.to_dicts()}


def test_two_models_are_compared(played):
    engines, result = played.engines, played.result
    assert engines.asked == {"long": 24, "short": 24, "judge": 48}  # four languages, both orders
    rows = rows_of(result)
    assert [*rows] == ["ar", "en", "he", "ja", "all"]
    for language in ("ar", "en", "he", "ja"):
        row = rows[language]
        assert (row["num_prompts"], row["num_games"], row["num_wins"]) == (6, 12, 12)
        assert (row["win_rate"], row["loss_rate"], row["win_rate_low"]) == (1, 0, 1)
        told = [user for system, user in engines.prompts if LANGUAGES[language].name in system]
        assert len(told) == 12
        assert all(WORDS[language] in user for user in told)
    assert rows["all"]["num_games"] == 48
    assert result.first_shown == 0.5  # the judge does not mind the order


def test_answers_come_with_confusion_and_lengths(played):
    answers = {(row["language"], row["model"]): row for row in played.result.answers.to_dicts()}
    assert answers["en", "long"]["num_answers"] == 6
    assert answers["ar", "long"]["wpr"] == 0  # the names "long" and "short" are English words
    assert answers["en", "short"]["wpr"] is None
    assert answers["en", "long"]["mean_chars"] > answers["en", "short"]["mean_chars"]
    assert answers["ja", "long"]["mean_tokens"] == 5


def test_a_rerun_asks_nothing(played):
    engines = Engines(prefer_long)
    repeated = evaluate(played.settings, played.warehouse, quiet=True, open_engine=engines)
    assert (repeated.num_sent, engines.asked) == (0, {})
    assert repeated.rates.equals(played.result.rates)
    verdicts = read(played.warehouse, "verdicts").filter(
        pl.col("judge_fingerprint") == played.result.evaluation.judge_fingerprint,
        pl.col("language").is_in(played.settings.languages),
    )
    assert verdicts.height == 48
    assert (verdicts["completion_a"] < verdicts["completion_b"]).all()
    assert set(verdicts["verdict"]) == {"A>B", "B>A"}
    assert set(read(played.warehouse, "prompts")["split"]) == {"eval"}


def test_verdicts_serve_whoever_asks_first(played):
    settings = played.settings
    turned = change(settings, a=settings.b.model_dump(), b=settings.a.model_dump())
    engines = Engines(prefer_long)
    result = evaluate(turned, played.warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {}
    assert rows_of(result)["ja"]["loss_rate"] == 1
    assert rows_of(result)["ja"]["num_losses"] == 12


def test_a_new_language_asks_only_its_own(played):
    engines = Engines(prefer_long)
    wider = change(played.settings, languages=[*played.settings.languages, "ko"])
    evaluate(wider, played.warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {"long": 6, "short": 6, "judge": 12}
    assert all("강" in user for _, user in engines.prompts)


def test_another_judge_asks_no_model_again(played):
    engines = Engines(lambda shown: "A>>B")
    five_steps = with_judge(played.settings, scale="arena", output="choice")
    result = evaluate(five_steps, played.warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {"judge": 48}
    row = rows_of(result)["he"]
    # Whoever is shown first wins strongly: shown both ways round, neither model is better.
    assert (row["win_rate"], row["loss_rate"], result.first_shown) == (0.5, 0.5, 1.0)


def test_unreadable_verdicts_are_counted_and_kept(played):
    settings = with_judge(played.settings, output="text")
    engines = Engines(lambda shown: "[[A]]" if "川" in shown else "the first one, 我觉得")
    result = evaluate(settings, played.warehouse, quiet=True, open_engine=engines)
    rows = rows_of(result)
    assert (rows["ar"]["num_unreadable"], rows["ar"]["num_games"], rows["ar"]["win_rate"]) == (12, 12, None)
    assert (rows["ja"]["num_unreadable"], rows["ja"]["win_rate"]) == (0, 0.5)
    assert (rows["all"]["num_unreadable"], rows["all"]["win_rate"]) == (36, 0.5)
    unreadable = read(played.warehouse, "verdicts").filter(pl.col("verdict") == "unreadable")
    assert unreadable["text"].unique().to_list() == ["the first one, 我觉得"]
    again = Engines(prefer_long)
    evaluate(settings, played.warehouse, quiet=True, open_engine=again)
    assert again.asked == {}  # what a judge said, it said


def test_games_without_an_answer_are_asked_again(played):
    settings = with_judge(played.settings, output="choice")
    engines = Engines()
    engines.fails = True
    result = evaluate(settings, played.warehouse, quiet=True, open_engine=engines)
    assert rows_of(result)["all"]["num_unjudged"] == 48
    assert set(read(played.warehouse, "rejections")["reason"]) == {"timeout"}
    again = Engines(lambda shown: "TIE")
    result = evaluate(settings, played.warehouse, quiet=True, open_engine=again)
    assert again.asked == {"judge": 48}
    assert (rows_of(result)["all"]["num_unjudged"], rows_of(result)["all"]["tie_rate"]) == (0, 1)


def test_chance_shows_each_pair_once_the_same_way_every_time(played):
    settings = with_judge(played.settings, scale="arena", output="text")
    engines = Engines(lambda shown: "[[A>B]]")
    once = evaluate(with_judge(settings, swap="random"), played.warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {"judge": 24}
    assert 5 <= rows_of(once)["all"]["num_wins"] <= 19
    both = Engines(lambda shown: "[[A>B]]")
    evaluate(settings, played.warehouse, quiet=True, open_engine=both)
    assert both.asked == {"judge": 24}  # the other order


def test_a_reward_model_judges(played):
    reward = {"name": "reward", "model": str(Path(played.settings.a.model).parent / "reward")}
    judged = with_judge(played.settings, llm=None, reward=reward)
    engines = Engines()
    result = evaluate(judged, played.warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {"reward": 48}
    assert rows_of(result)["ja"]["num_wins"] == 6  # one game a pair: order does not matter to a score
    assert read(played.warehouse, "rewards").height == 48
    tied = with_judge(judged, tie_margin=1000.0)
    again = Engines()
    assert rows_of(evaluate(tied, played.warehouse, quiet=True, open_engine=again))["ja"]["tie_rate"] == 1
    assert again.asked == {}


def test_more_samples_are_more_games_of_which_all_are_judged(settings, warehouse):
    """Under the id of fewer samples, answers beyond them were none of the evaluation's, and no reward model saw them."""
    reward = {"name": "reward", "model": str(Path(settings.a.model).parent / "reward")}
    judged = with_judge(change(settings, languages=["en", "he"]), llm=None, reward=reward)
    once = evaluate(judged, warehouse, quiet=True, open_engine=Engines())
    both = {side: getattr(judged, side).model_dump() | {"samples": 2} for side in ("a", "b")}
    engines = Engines()
    twice = evaluate(change(judged, **both), warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {"long": 12, "short": 12, "reward": 24}  # the second samples alone
    row = rows_of(twice)["he"]
    assert (row["num_games"], row["num_unjudged"]) == (12, 0)
    assert twice.evaluation.evaluation_id != once.evaluation.evaluation_id
    again = evaluate(judged, warehouse, quiet=True, open_engine=engines)
    assert (again.num_sent, rows_of(again)["he"]["num_games"]) == (0, 6)


def test_whatever_changes_the_figures_gives_them_another_name(settings, warehouse, tmp_path, monkeypatch):
    """The files of figures lie side by side; what a model is called and where it lies makes no other evaluation."""
    monkeypatch.chdir(tmp_path)
    ask = partial(evaluate, open_engine=Engines(prefer_long))
    monkeypatch.setattr(evaluation_report, "evaluate", ask)
    settings = change(settings, languages=["en"])
    changes = [{}, {"judge": settings.judge.model_dump() | {"swap": "random"}}]
    for number, changed in enumerate(changes, start=1):
        evaluation_report.run_winrate(change(settings, **changed), warehouse=warehouse, quiet=True)
        assert len(list((tmp_path / "evaluations").glob("small-*.json"))) == number
    shutil.copytree(settings.b.model, tmp_path / "elsewhere")
    moved = change(settings, b=settings.b.model_dump() | {"name": "other", "model": str(tmp_path / "elsewhere")})
    evaluation_report.run_winrate(moved, warehouse=warehouse, quiet=True)
    assert len(list((tmp_path / "evaluations").glob("small-*.json"))) == len(changes)


def test_a_limit_takes_the_same_prompts_every_time(played):
    engines = Engines(prefer_long)
    result = evaluate(change(played.settings, limit=2), played.warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {}
    assert {row["num_prompts"] for row in result.rates.to_dicts()} == {2, 8}
    assert result.evaluation.evaluation_id != played.result.evaluation.evaluation_id


def test_of_a_build_that_has_grown_a_limit_takes_no_more_prompts(settings, warehouse, monkeypatch):
    """Of another build's held-out prompts, as many: those that are first now, and no longer those that were."""
    monkeypatch.setattr(evaluation_flow, "_identify_prompts", lambda _: "the same build")
    few = change(settings, limit=2)
    first = evaluate(few, warehouse, quiet=True, open_engine=Engines(prefer_long))
    file = Path(settings.prompts.path)
    file.write_text("".join(line.replace('"q": "', '"q": "and ') + "\n" for line in file.read_text().splitlines()))
    second = evaluate(few, warehouse, quiet=True, open_engine=Engines(prefer_long))
    assert second.evaluation.evaluation_id == first.evaluation.evaluation_id
    assert {row["num_prompts"] for row in second.rates.to_dicts()} == {2, 8}


def test_a_changed_file_is_another_evaluation_and_asks_only_what_is_new(settings, warehouse):
    first = evaluate(settings, warehouse, quiet=True, open_engine=Engines(prefer_long))
    file = Path(settings.prompts.path)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    japanese = [row | {"q": "新しい 川"} for row in rows if row["language"] == "ja"][:1]
    file.write_text("\n".join(json.dumps(row) for row in [*rows[len(WORDS) :], *japanese]))
    engines = Engines(prefer_long)
    second = evaluate(settings, warehouse, quiet=True, open_engine=engines)
    assert second.evaluation.evaluation_id != first.evaluation.evaluation_id
    assert engines.asked == {"long": 1, "short": 1, "judge": 2}
    assert {language: row["num_prompts"] for language, row in rows_of(second).items()} == {
        "ar": 5,
        "en": 5,
        "he": 5,
        "ja": 6,
        "all": 21,
    }
    assert sum(second.answers.filter(model="long")["num_answers"]) == 21


def test_a_file_may_lie_anywhere(settings, warehouse, tmp_path):
    first = evaluate(settings, warehouse, quiet=True, open_engine=Engines(prefer_long))
    moved = Path(settings.prompts.path).rename(tmp_path / "moved.jsonl")
    engines = Engines(prefer_long)
    elsewhere = change(settings, prompts=settings.prompts.model_dump() | {"path": str(moved)})
    second = evaluate(elsewhere, warehouse, quiet=True, open_engine=engines)
    assert second.evaluation.evaluation_id == first.evaluation.evaluation_id
    assert engines.asked == {}


def test_the_held_out_prompts_of_a_build_are_answered(settings, warehouse):
    first = evaluate(settings, warehouse, quiet=True, open_engine=Engines(prefer_long))
    evaluation_id = first.evaluation.evaluation_id
    build = dict.fromkeys(TABLES["builds"].column_names()) | {
        "run_id": "r",
        "config_id": evaluation_id,
        "name": "rivers",
    }
    build |= {"recipe": "{}", "status": "finished", "recorded_at": datetime.now(UTC)}
    with Lake.open(warehouse) as lake:
        lake.append("builds", pl.DataFrame([build], schema=TABLES["builds"].create_empty().schema))
        # One prompt is no longer held out, and one is not kept.
        ids = lake.query("SELECT prompt_id FROM prompts WHERE language = 'ja' ORDER BY prompt_id")["prompt_id"]
        lake.transact(lambda cursor: cursor.execute("UPDATE prompts SET split = 'train' WHERE prompt_id = ?", [ids[0]]))
        gate = {"config_id": evaluation_id, "row_id": ids[1], "stage": "prompt_gate", "settings_id": ""}
        gate |= {"reason": "wrong_language", "detail": "", "language": "ja", "model": None}
        lake.append("rejections", pl.DataFrame([gate], schema=TABLES["rejections"].create_empty().schema))
    engines = Engines(prefer_long)
    result = evaluate(change(settings, prompts=None, build="rivers"), warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {}
    assert {row["language"]: row["num_prompts"] for row in result.rates.to_dicts()} == {
        "ar": 6,
        "en": 6,
        "he": 6,
        "ja": 4,
        "all": 22,
    }


def test_a_stopped_evaluation_goes_on(settings, warehouse):
    first = Engines(prefer_long, stop_after=60)
    often = change(settings, run={"commit_rows": 3})
    with pytest.raises(BuildStoppedError):
        evaluate(often, warehouse, quiet=True, open_engine=first)
    second = Engines(prefer_long)
    result = evaluate(settings, warehouse, quiet=True, open_engine=second)
    assert first.asked + second.asked == {"long": 24, "short": 24, "judge": 48}
    assert rows_of(result)["all"]["num_wins"] == 48


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_was_told_to_stop_exits_as_by_the_signal(settings, tmp_path, monkeypatch, capsys, number, code):
    async def interrupt(call):
        if call.number == 0:
            os.kill(os.getpid(), number)
        return completion("fine")

    with ScriptedServer(interrupt) as server:
        file, run = tmp_path / "evaluation.toml", f'engine = "openai", run = {{ urls = ["{server.url}"] }}'
        file.write_text(file.read_text().replace('model = "./long"', f'model = "long", {run}'))
        words = ["evaluate", "winrate", "--settings", str(file), "--warehouse", str(tmp_path / "lake")]
        monkeypatch.setattr(sys, "argv", ["factory", *words])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert stopped.value.code == code
    assert capsys.readouterr().err.endswith("error: the build was stopped; the same command goes on from there\n")


def test_recorded_answers_are_judged_like_any(settings, warehouse, tmp_path):
    recorded = [{"id": f"{number}", "text": f"short 私は 川 {number}"} for number in range(NUM_PROMPTS)]
    (tmp_path / "recorded.jsonl").write_text("\n".join(map(json.dumps, recorded)))
    b = {
        "name": "recorded",
        "engine": "recorded",
        "recorded": {"path": str(tmp_path / "recorded.jsonl"), "columns": {"text": "text", "key": "id"}},
    }
    only = [row for row in (tmp_path / "prompts.jsonl").read_text().splitlines() if '"ja"' in row]
    (tmp_path / "prompts.jsonl").write_text("\n".join(only))
    engines = Engines(prefer_long)
    result = evaluate(change(settings, b=b), warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {"long": 6, "judge": 12}
    assert rows_of(result)["ja"]["win_rate"] == 1
    assert [row["mean_tokens"] for row in result.answers.to_dicts()] == [5, None]


def test_mistakes_are_sentences(settings, warehouse, tmp_path):
    same = change(settings, b=settings.a.model_dump() | {"name": "again"})
    with pytest.raises(RecipeError, match="long and again are one model with the same settings"):
        evaluate(same, warehouse, quiet=True, open_engine=Engines())
    with pytest.raises(InputError, match=r"the warehouse has no build .* name \[evaluation.prompts\]"):
        evaluate(change(settings, prompts=None), warehouse, quiet=True, open_engine=Engines())
    with pytest.raises(InputError, match="there are no prompts in vi to answer"):
        evaluate(change(settings, languages=["vi"]), warehouse, quiet=True, open_engine=Engines())
    text = (tmp_path / "evaluation.toml").read_text()
    (tmp_path / "evaluation.toml").write_text(text.replace('{ llm = { name = "judge", model = "./judge" } }', "{}"))
    with pytest.raises(RecipeError, match=r"evaluation.toml:8: evaluation.judge: exactly one of 'llm', 'reward'"):
        load_table(tmp_path / "evaluation.toml", "evaluation", EvaluationSettings)


def test_the_command_prints_tables_and_writes_json(settings, warehouse, tmp_path, monkeypatch, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    given = {}

    def evaluate_here(changed: EvaluationSettings, place: WarehouseSettings, *, quiet: bool) -> EvaluationResult:
        given["b"] = changed.b.model
        return evaluate(changed, place, quiet=quiet, open_engine=Engines(prefer_long))

    monkeypatch.setattr(evaluation_report, "evaluate", evaluate_here)
    monkeypatch.setattr(
        "sys.argv", ["factory", "evaluate", "winrate", "long", "other", "--settings", "evaluation.toml"]
    )
    cli.main()
    printed = capsys.readouterr().out
    assert "long against short" in printed
    assert "100.0% (100–100)" in printed
    assert "the answer shown first has won 50.0%" in printed
    (path,) = (tmp_path / "evaluations").iterdir()
    written = json.loads(path.read_text())
    assert given["b"] == str(tmp_path / "other")
    assert written["models"][1]["model"] == str(tmp_path / "other")
    assert written["models"][0]["temperature"] == 0.75
    assert written["judge"]["kind"] == "llm"
    assert [row["language"] for row in written["rates"]] == ["ar", "en", "he", "ja", "all"]


def test_two_models_play_on_a_recipes_held_out_prompts(write_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(write_recipe(name="small", languages=("en", "ja")))
    with pytest.raises(FactoryError, match="no build of recipe 'small', as it is now, has run on the warehouse"):
        find_settings(None, recipe, "models/north", "models/south")
    build = execute_build(recipe, quiet=True, open_engine=DirectEngines())
    found = find_settings(None, recipe, "models/north", "models/south")
    assert (found.a.name, found.b.name, found.name) == ("north", "south", "north-vs-south")
    assert found.a.model == str(tmp_path / "models/north")
    assert found.judge.reward == found.reward == recipe.reward_models[0]
    assert found.languages == ("en", "ja")
    result = evaluate(found, recipe.warehouse, quiet=True, open_engine=DirectEngines())
    assert found.build == build.config_id
    games = rows_of(result)["all"]
    assert games["num_wins"] + games["num_losses"] + games["num_ties"] == games["num_games"] == result.num_prompts
    with pytest.raises(FactoryError, match="both models are named 'north'"):
        find_settings(None, recipe, "models/north", "elsewhere/north")
    with pytest.raises(FactoryError, match="name two models and --recipe"):
        find_settings(None, recipe, "models/north", None)


def test_any_folder_of_a_model_makes_a_name_of_a_file(write_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(write_recipe())
    for folder in ("נהר 川/model", "south pole"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}")
    execute_build(recipe, until="read", quiet=True, open_engine=DirectEngines())
    found = find_settings(None, recipe, "נהר 川/model", "./south pole")
    assert (found.name, found.a.name, found.b.name) == ("--vs-south-pole", "נהר 川", "south pole")
    assert found.a.model == str(tmp_path / "נהר 川" / "model")
