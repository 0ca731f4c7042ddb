"""Whole evaluations over a real lake, with engines in this process that answer by rule."""

import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import polars as pl
import pytest

from factory.engines.base import Failure, Reply, Request
from flows import cli, evaluation_report
from flows.evaluation import EvaluationResult, evaluate
from flows.lanes import BuildStoppedError
from schemas.errors import InputError, RecipeError
from schemas.evaluation import EvaluationSettings
from schemas.languages import LANGUAGES
from schemas.reasons import Reason
from schemas.recipe import Model, WarehouseSettings
from schemas.recipe_file import load_table
from warehouse.lake import Lake

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


@pytest.fixture
def settings(tmp_path: Path) -> EvaluationSettings:
    rows = [
        {"id": f"{number}", "language": language, "q": f"{word} {number}: {word}"}
        for number in range(NUM_PROMPTS)
        for language, word in WORDS.items()
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    for name in ("long", "short", "judge", "reward"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))
    (tmp_path / "evaluation.toml").write_text(
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
    return load_table(tmp_path / "evaluation.toml", "evaluation", EvaluationSettings)


@pytest.fixture
def warehouse(tmp_path: Path) -> WarehouseSettings:
    return WarehouseSettings(catalog=str(tmp_path / "lake/catalog.sqlite"), data=str(tmp_path / "lake/data"))


def change(settings: EvaluationSettings, **changes: object) -> EvaluationSettings:
    return EvaluationSettings.model_validate(settings.model_dump() | changes)


def with_judge(settings: EvaluationSettings, **judge: object) -> EvaluationSettings:
    return change(settings, judge=settings.judge.model_dump() | judge)


def read(warehouse: WarehouseSettings, table: str) -> pl.DataFrame:
    with Lake.open(warehouse, read_only=True) as lake:
        return lake.query(f"FROM {table}")


def rows_of(result: EvaluationResult) -> dict[str, dict]:
    return {row["language"]: row for row in result.rates.to_dicts()}


def test_two_models_are_compared_and_a_rerun_asks_nothing(settings, warehouse):
    engines = Engines(prefer_long)
    result = evaluate(settings, warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {"long": 24, "short": 24, "judge": 48}  # four languages, both orders
    rows = rows_of(result)
    assert [*rows] == ["ar", "en", "he", "ja", "all"]
    for language in ("ar", "en", "he", "ja"):
        row = rows[language]
        assert (row["num_prompts"], row["num_games"], row["num_wins"]) == (6, 12, 12)
        assert (row["win_rate"], row["loss_rate"], row["win_rate_low"]) == (1, 0, 1)
    assert rows["all"]["num_games"] == 48
    assert result.first_shown == 0.5  # the judge does not mind the order
    answers = {(row["language"], row["model"]): row for row in result.answers.to_dicts()}
    assert answers["en", "long"]["num_answers"] == 6
    assert answers["ar", "long"]["wpr"] == 0  # the names "long" and "short" are English words
    assert answers["en", "short"]["wpr"] is None
    assert answers["en", "long"]["mean_chars"] > answers["en", "short"]["mean_chars"]
    assert answers["ja", "long"]["mean_tokens"] == 5
    verdicts = read(warehouse, "verdicts")
    assert verdicts.height == 48
    assert (verdicts["completion_a"] < verdicts["completion_b"]).all()
    assert set(verdicts["verdict"]) == {"A>B", "B>A"}
    assert set(read(warehouse, "prompts")["split"]) == {"eval"}
    for language in settings.languages:
        own = [user for system, user in engines.prompts if LANGUAGES[language].name in system]
        assert len(own) == 12
        assert all(WORDS[language] in user for user in own)
    again = Engines(prefer_long)
    repeated = evaluate(settings, warehouse, quiet=True, open_engine=again)
    assert (repeated.num_sent, again.asked) == (0, {})
    assert repeated.rates.equals(result.rates)
    assert read(warehouse, "verdicts").height == 48


def test_verdicts_serve_whoever_asks_first(settings, warehouse):
    first = evaluate(settings, warehouse, quiet=True, open_engine=Engines(prefer_long))
    turned = change(settings, a=settings.b.model_dump(), b=settings.a.model_dump())
    engines = Engines(prefer_long)
    result = evaluate(turned, warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {}
    assert rows_of(result)["ja"]["loss_rate"] == rows_of(first)["ja"]["win_rate"] == 1
    assert rows_of(result)["ja"]["num_losses"] == 12


def test_a_new_language_asks_only_its_own(settings, warehouse):
    evaluate(settings, warehouse, quiet=True, open_engine=Engines(prefer_long))
    engines = Engines(prefer_long)
    evaluate(change(settings, languages=[*settings.languages, "ko"]), warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {"long": 6, "short": 6, "judge": 12}
    assert all("강" in user for _, user in engines.prompts)


def test_another_judge_asks_no_model_again(settings, warehouse):
    evaluate(settings, warehouse, quiet=True, open_engine=Engines(prefer_long))
    engines = Engines(lambda shown: "A>>B")
    five_steps = with_judge(settings, scale="arena", output="choice")
    result = evaluate(five_steps, warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {"judge": 48}
    row = rows_of(result)["he"]
    # Whoever is shown first wins strongly: shown both ways round, neither model is better.
    assert (row["win_rate"], row["loss_rate"], result.first_shown) == (0.5, 0.5, 1.0)


def test_unreadable_verdicts_are_counted_and_kept(settings, warehouse):
    engines = Engines(lambda shown: "A" if "川" in shown else "the first one, 我觉得")
    result = evaluate(settings, warehouse, quiet=True, open_engine=engines)
    rows = rows_of(result)
    assert (rows["ar"]["num_unreadable"], rows["ar"]["num_games"], rows["ar"]["win_rate"]) == (12, 12, None)
    assert (rows["ja"]["num_unreadable"], rows["ja"]["win_rate"]) == (0, 0.5)
    assert rows["all"]["num_unreadable"] == 36
    assert rows["all"]["win_rate"] == 0.5
    unreadable = read(warehouse, "verdicts").filter(pl.col("verdict") == "unreadable")
    assert unreadable["text"].unique().to_list() == ["the first one, 我觉得"]
    again = Engines(prefer_long)
    evaluate(settings, warehouse, quiet=True, open_engine=again)
    assert again.asked == {}  # what a judge said, it said


def test_games_without_an_answer_are_asked_again(settings, warehouse):
    engines = Engines(prefer_long)
    engines.fails = True
    result = evaluate(settings, warehouse, quiet=True, open_engine=engines)
    assert rows_of(result)["all"]["num_unjudged"] == 48
    assert set(read(warehouse, "rejections")["reason"]) == {"timeout"}
    again = Engines(prefer_long)
    result = evaluate(settings, warehouse, quiet=True, open_engine=again)
    assert again.asked == {"judge": 48}
    assert rows_of(result)["all"]["num_unjudged"] == 0


def test_chance_shows_each_pair_once_the_same_way_every_time(settings, warehouse):
    once = with_judge(settings, swap="random")
    engines = Engines(prefer_long)
    result = evaluate(once, warehouse, quiet=True, open_engine=engines)
    assert engines.asked["judge"] == 24
    orders = Counter(read(warehouse, "verdicts")["order"])
    assert min(orders["ab"], orders["ba"]) >= 5
    assert rows_of(result)["all"]["win_rate"] == 1
    both = Engines(prefer_long)
    evaluate(settings, warehouse, quiet=True, open_engine=both)
    assert both.asked == {"judge": 24}  # the other order


def test_a_reward_model_judges(settings, warehouse):
    reward = {"name": "reward", "model": str(Path(settings.a.model).parent / "reward")}
    judged = with_judge(settings, llm=None, reward=reward)
    engines = Engines()
    result = evaluate(judged, warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {"long": 24, "short": 24, "reward": 48}
    assert rows_of(result)["ja"]["num_wins"] == 6  # one game a pair: order does not matter to a score
    assert read(warehouse, "rewards").height == 48
    tied = with_judge(judged, tie_margin=1000.0)
    again = Engines()
    assert rows_of(evaluate(tied, warehouse, quiet=True, open_engine=again))["ja"]["tie_rate"] == 1
    assert again.asked == {}


def test_a_stopped_evaluation_goes_on(settings, warehouse):
    first = Engines(prefer_long, stop_after=60)
    often = change(settings, run={"commit_rows": 3})
    with pytest.raises(BuildStoppedError):
        evaluate(often, warehouse, quiet=True, open_engine=first)
    second = Engines(prefer_long)
    result = evaluate(settings, warehouse, quiet=True, open_engine=second)
    assert first.asked + second.asked == {"long": 24, "short": 24, "judge": 48}
    assert rows_of(result)["all"]["num_wins"] == 48


def test_a_limit_takes_the_same_prompts_every_time(settings, warehouse):
    few = change(settings, limit=2)
    engines = Engines(prefer_long)
    result = evaluate(few, warehouse, quiet=True, open_engine=engines)
    assert engines.asked == {"long": 8, "short": 8, "judge": 16}
    assert {row["num_prompts"] for row in result.rates.to_dicts()} == {2, 8}


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
    monkeypatch.setattr("sys.argv", ["factory", "evaluate", "winrate", "evaluation.toml", "--b", "other"])
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
