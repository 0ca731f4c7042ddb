"""An LLM judge behind a real vLLM server, over recorded answers: its verdicts are noise, the bookkeeping must be right."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from factory.evaluation.judging import make_messages
from factory.evaluation.verdicts import UNREADABLE
from factory.microworld.questions import MODELS
from flows.evaluation.evaluate import EvaluationResult, evaluate
from schemas.recipe.evaluation import EvaluationSettings
from schemas.recipe.settings import WarehouseSettings
from tests.vllm_server import KEY, vllm_serve
from tests.waiting import GUARD_SECONDS
from warehouse.lake.lake import Lake

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LANGUAGES = ("ar", "en", "ja")
NUM_PROMPTS = 18
NUM_GAMES = 36

GAMES = """
    SELECT verdicts.*, prompts.messages, a.model AS model_a, a.text AS text_a, b.text AS text_b
    FROM verdicts
    JOIN prompts USING (prompt_id)
    JOIN completions AS a ON a.completion_id = completion_a
    JOIN completions AS b ON b.completion_id = completion_b
    WHERE judge_fingerprint = ?
    ORDER BY completion_a, completion_b, "order"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a vLLM server with the microworld's base model behind it."""
    log = tmp_path_factory.mktemp("server") / "log"
    with pytest.MonkeyPatch.context() as patch, vllm_serve(MODELS / "base", log, max_model_len=1024) as url:
        patch.setenv("TINY_KEY", KEY)
        yield url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded answers of two models, a file each, and the prompts that they answer."""
    folder = tmp_path_factory.mktemp("recorded")
    lines = (MODELS.parent / "recorded.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["prompt"]["language"] in LANGUAGES]
    for model in ("recorded-a", "recorded-b"):
        own = [row for row in rows if row["model"] == model]
        (folder / f"{model}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    return folder


def make_settings(folder: Path, server: str, scale: str, output: str, **sampling: Any) -> EvaluationSettings:
    keys = {"text": "answer.text", "key": "prompt.id", "language": "prompt.language"}
    contestants = {
        side: {"name": name, "engine": "recorded", "recorded": {"path": str(folder / f"{name}.jsonl"), "columns": keys}}
        for side, name in (("a", "recorded-b"), ("b", "recorded-a"))
    }
    llm = {
        "name": "tiny",
        "engine": "openai",
        "model": "tiny",
        "sampling": {"max_tokens": 24, **sampling},
        "run": {"urls": [server], "api_key_env": "TINY_KEY"},
    }
    prompts = {
        "name": "micro",
        "path": str(folder / "recorded-a.jsonl"),
        "columns": {"prompt": "prompt.text", "id": "prompt.id", "language": "prompt.language"},
    }
    judge = {"scale": scale, "output": output, "llm": llm}
    return EvaluationSettings.model_validate(
        {**contestants, "languages": LANGUAGES, "prompts": prompts, "judge": judge, "bootstrap_rounds": 50}
    )


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> WarehouseSettings:
    folder = tmp_path_factory.mktemp("lake")
    return WarehouseSettings(catalog=str(folder / "catalog.sqlite"), data=str(folder / "data"))


def games_of(result: EvaluationResult, warehouse: WarehouseSettings) -> list[dict[str, Any]]:
    with Lake.open(warehouse, read_only=True) as lake:
        return lake.query(GAMES, [result.evaluation.judge_fingerprint]).to_dicts()


def count_by_hand(games: list[dict[str, Any]], labels: dict[str, str]) -> Counter[str]:
    """Who has won each game, by what the judge wrote, who was shown first, and who wrote what."""
    outcomes: Counter[str] = Counter()
    for game in games:
        said = labels.get(game["text"])
        if said in {None, "tie"}:
            outcomes[said or UNREADABLE] += 1
            continue
        first_is_completion_a = game["order"] == "ab"
        winner_is_completion_a = (said == "first") == first_is_completion_a
        winner = game["model_a"] if winner_is_completion_a else "other"
        if winner == "other":
            winner = "recorded-a" if game["model_a"] == "recorded-b" else "recorded-b"
        outcomes[winner] += 1
    return outcomes


def overall(result: EvaluationResult) -> dict[str, Any]:
    return result.rates.row(by_predicate=pl.col("language") == "all", named=True)


def test_verdicts_are_counted_as_the_judge_gave_them(folder, server, warehouse):
    settings = make_settings(folder, server, "aya", "choice", temperature=2.0)
    result = evaluate(settings, warehouse, quiet=True)
    games = games_of(result, warehouse)
    assert result.num_sent == len(games) == NUM_GAMES
    assert Counter(game["order"] for game in games) == {"ab": NUM_PROMPTS, "ba": NUM_PROMPTS}
    labels = {"A": "first", "B": "second", "TIE": "tie"}
    assert len({game["text"] for game in games}) > 1, "a judge that always says the same shows nothing"
    expected = count_by_hand(games, labels)
    counts = overall(result)
    assert counts["num_wins"] == expected["recorded-b"], "recorded-b is the first model"
    assert counts["num_losses"] == expected["recorded-a"]
    assert counts["num_ties"] == expected["tie"]
    assert counts["num_unreadable"] == expected[UNREADABLE] == 0
    won_first = sum(game["text"] == "A" for game in games)
    assert result.first_shown == pytest.approx(won_first / (won_first + sum(game["text"] == "B" for game in games)))


def test_a_rerun_asks_only_what_is_missing(folder, server, warehouse):
    settings = make_settings(folder, server, "arena", "choice", temperature=0.0)
    first = evaluate(settings, warehouse, quiet=True)
    before = games_of(first, warehouse)
    again = evaluate(settings, warehouse, quiet=True)
    assert (first.num_sent, again.num_sent) == (NUM_GAMES, 0)
    assert again.rates.equals(first.rates)
    with Lake.open(warehouse) as lake:
        fingerprint = first.evaluation.judge_fingerprint
        lake.delete("verdicts", "judge_fingerprint = ? AND language = 'ja' AND \"order\" = 'ba'", [fingerprint])
    after = evaluate(settings, warehouse, quiet=True)
    assert after.num_sent == 6
    assert len(games_of(after, warehouse)) == NUM_GAMES
    assert [(game["completion_a"], game["order"]) for game in games_of(after, warehouse)] == [
        (game["completion_a"], game["order"]) for game in before
    ]


def test_each_order_shows_the_answers_in_that_order(folder, server, warehouse):
    """What the server says when it is asked by hand is what the row of that order holds."""
    settings = make_settings(folder, server, "arena", "text", temperature=0.0)
    result = evaluate(settings, warehouse, quiet=True)
    games = games_of(result, warehouse)
    counts = overall(result)
    assert counts["num_unreadable"] == counts["num_games"] == NUM_GAMES, "the tiny model writes no verdict"
    assert counts["win_rate"] is None
    assert all(game["verdict"] == UNREADABLE and game["text"] for game in games)
    english = [game for game in games if game["language"] == "en"][:6]
    for game in english:
        body: dict[str, Any] = {"model": "tiny", "messages": list(make_messages(game, "arena", "text"))}
        body |= {"temperature": 0.0, "max_tokens": 24}
        headers = {"Authorization": f"Bearer {KEY}"}
        reply = httpx.post(f"{server}/chat/completions", json=body, headers=headers, timeout=GUARD_SECONDS).json()
        assert reply["choices"][0]["message"]["content"] == game["text"]
    both = {(game["completion_a"], game["order"]): game["text"] for game in english}
    assert any(text != both[completion, "ba"] for (completion, order), text in both.items() if order == "ab")


def test_a_bounded_reason_comes_to_its_verdict(folder, server, warehouse):
    """Unbounded, the tiny model rambles to the end of its tokens in most games; such verdicts count as unreadable."""
    settings = make_settings(folder, server, "aya", "json", temperature=1.0, max_tokens=400)
    bounded = settings.model_copy(update={"judge": settings.judge.model_copy(update={"max_reason_chars": 60})})
    num_unreadable = []
    for wanted in (settings, bounded):
        result = evaluate(wanted, warehouse, quiet=True)
        counts = overall(result)
        whole = [game for game in games_of(result, warehouse) if _is_json(game["text"])]
        assert result.num_sent == NUM_GAMES
        assert counts["num_unreadable"] == NUM_GAMES - len(whole)
        assert counts["num_wins"] + counts["num_losses"] + counts["num_ties"] == len(whole)
        num_unreadable.append(counts["num_unreadable"])
    assert num_unreadable[1] < num_unreadable[0] / 2
    # Bytes that are not characters may count for more than one.
    assert all(len(json.loads(game["text"], strict=False)["reason"]) < 70 for game in whole)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except ValueError:
        return False
    return True
