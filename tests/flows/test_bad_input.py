"""Bad input of every kind through a whole build: one clear sentence, or a rejection with its reason."""

import asyncio
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from factory.engines.base import Failure
from factory.engines.open import open_engine
from factory.engines.openai.engine import OpenAIEngine
from factory.engines.openai.servers import Patience
from flows.build.run import execute_build
from flows.cli import main
from schemas.errors import EngineError, FactoryError, InputError, RecipeError, WarehouseError
from schemas.reasons import Reason
from schemas.recipe.recipe import load_recipe
from tests.factory.engines.scripted_server import DROP, ScriptedServer, completion, echo
from tests.flows.direct import DirectEngines
from tests.prefect_server import make_environment
from tests.waiting import GUARD_SECONDS
from warehouse.lake.lake import Lake

ROOT = Path(__file__).parents[2]

RECIPE = """
name = "small"
languages = ["en", "fr"]
[[prompts]]
name = "questions"
path = "prompts.jsonl"
columns = { prompt = "q", id = "id", language = "lang" }
[prompt_gates]
language = false
near_duplicate_similarity = 0
[[teachers]]
name = "north"
model = "./models/north"
[gates]
language = false
[[reward_models]]
name = "judge"
model = "./models/judge"
[warehouse]
catalog = "FOLDER/lake/catalog.sqlite"
data = "FOLDER/lake/data"
[run]
exports = "FOLDER/exports"
"""

PROMPTS = [{"id": str(number), "q": f"What is {number} and why?", "lang": "en"} for number in range(4)]


def write_lines(path: Path, rows: list[Any]) -> None:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")


def write_model(folder: Path, architecture: str = "LlamaForCausalLM", weights: bytes = b"weights") -> None:
    """Write what a check of a model folder looks at."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    (folder / "chat_template.jinja").write_text("")
    if weights:
        (folder / "model.safetensors").write_bytes(weights)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the recipe with some of its text replaced, its prompts and its models."""
    write_lines(tmp_path / "prompts.jsonl", PROMPTS)
    write_model(tmp_path / "models" / "north")
    write_model(tmp_path / "models" / "judge", "LlamaForSequenceClassification")

    def make(*changes: tuple[str, str]) -> Path:
        text = RECIPE.replace("FOLDER", str(tmp_path))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "small.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return make


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail with one sentence; return the sentence."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["factory", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 1
        said = capsys.readouterr().err
        assert said.startswith("error: "), said
        assert said.count("\n") == 1, said
        return said.removeprefix("error: ").rstrip("\n")

    return run


@pytest.fixture
def misused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command whose options must be refused; return the last line."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["factory", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return run


def build(path: Path, engines: Any = None, until: str = "route", **settings: Any) -> Any:
    return execute_build(load_recipe(path), until=until, quiet=True, open_engine=engines or DirectEngines(), **settings)


def reasons(path: Path, stage: str) -> dict[str, int]:
    """Return how many rows of a stage were rejected, by reason."""
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        found = lake.query("SELECT reason, count(*) FROM rejections WHERE stage = ? GROUP BY 1", [stage])
    return dict(found.iter_rows())


def texts_of(path: Path, table: str = "completions") -> list[str]:
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        return lake.query(f"SELECT text FROM {table} ORDER BY text")["text"].to_list()


class Interrupted(io.StringIO):
    def read(self, size: int | None = -1) -> str:
        raise KeyboardInterrupt


def test_an_interrupt_at_any_place_is_a_sentence_and_130(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Interrupted())
    monkeypatch.setattr(sys, "argv", ["factory", "sql", "-"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    assert capsys.readouterr().err.startswith("stopped; what was answered is committed")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "flows.cli", "--help"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_command_is_shown_with_its_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["factory", "sql", "--nope"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Usage: ")
    assert "No such option: --nope" in shown


# Recipes


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[warehouse]", "[warehouse", r"small\.toml is not TOML: .*line 19"),
        ('"en", "fr"', '"en", "xx"', r"small\.toml:3: languages: unknown language 'xx'; allowed are ar, cs"),
        ("[gates]", '[[teachers]]\nname = "north"\nmodel = "org/b"\n[gates]', r"teacher 'north' is named twice"),
        ("[gates]", '[routing]\nmethod = "fixed"\nteachers = { en = "east" }\n[gates]', r"unknown teacher 'east'; the"),
        (
            "[gates]",
            '[[pairs]]\nstrategy = "strong_vs_weak"\nstrong = "north"\nweak = "west"\n[gates]',
            r"small\.toml:17: pairs\.0\.weak: unknown teacher 'west'; the pool has north",
        ),
        (
            '"prompts.jsonl"',
            '"nowhere.jsonl"',
            r"small\.toml:6: prompts\.questions\.path: no file at .*/nowhere\.jsonl$",
        ),
        (
            '"prompts.jsonl"',
            '"small.toml"',
            r"small\.toml is of a kind that cannot be read; allowed are \.parquet",
        ),
        (
            'prompt = "q"',
            'prompt = "question"',
            r"no row of 'questions' can be read; first row: prompts\.jsonl:1: no fie",
        ),
        ('"./models/north"', '"./models/nowhere"', r"there is no model folder '.*/models/nowhere'"),
        (
            '"./models/north"',
            '"./models/north"\nchat_template = "no.jinja"',
            r"small\.toml:14: teachers\.north\.chat_template: no file at .*/no\.jinja",
        ),
        (
            "[gates]",
            '[routing]\nmethod = "sql"\nsql = "no.sql"\n[gates]',
            r"small\.toml:16: routing\.sql: no file at .*/no\.sql",
        ),
        ("[gates]", '[gates]\nrefusal_patterns = ["("]', r"gates\.refusal_patterns: '\(' is not a regular expression"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_sentence_before_anything_is_sent(write, refused, old, new, sentence):
    path = write((old, new))
    engines = DirectEngines()
    with pytest.raises(FactoryError, match=sentence) as caught:
        build(path, engines)
    assert engines.opened == []
    assert refused("plan", path) == str(caught.value)


def test_a_failed_run_says_one_sentence(write, tmp_path, prefect_database):
    path = write(('"prompts.jsonl"', '"nowhere.jsonl"'))
    environment = make_environment(tmp_path / "prefect", prefect_database)
    del environment["PREFECT_API_URL"]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "--quiet", str(path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
    )
    assert done.returncode == 1
    assert done.stderr == f"error: {path}:6: prompts.questions.path: no file at {tmp_path}/nowhere.jsonl\n"
    assert not (tmp_path / "lake").exists()


def test_a_failed_build_is_recorded(write):
    path = write()

    def fault(request):
        raise EngineError("the engine keeps dying")

    with pytest.raises(EngineError):
        build(path, DirectEngines(fault=fault))
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        status, detail = lake.query("SELECT status, detail FROM builds WHERE status <> 'running'").row(0)
    assert (status, detail) == ("failed", "EngineError: the engine keeps dying")


def test_an_export_before_any_run_says_so_and_makes_nothing(write, refused, tmp_path):
    said = f"no build of recipe 'small', as it is now, has run on the warehouse {tmp_path}/lake/catalog.sqlite: "
    path = write()
    assert refused("export", path).startswith(said)
    assert not (tmp_path / "lake").exists()
    build(path, until="read")
    path.write_text(path.read_text().replace("[gates]", "[gates]\nmax_chars = 7"))
    assert refused("export", path).startswith(said)


def test_a_language_of_a_cluster_that_the_recipe_lacks(write, refused):
    path = write(
        ("[gates]", POLICY), ('base = "BASE"', 'base = "BASE"\nclusters = { west = ["fr"], east = ["en", "ja"] }')
    )
    said = f"{path}:16: policy.clusters.east: cluster 'east' has the language 'ja', but the recipe only has en, fr"
    assert refused("plan", path) == said


POLICY = """[policy]
base = "BASE"
[policy.held_out.judge.llm]
name = "j"
model = "./models/north"
chat_template = "TEMPLATE"
[[policy.steps]]
name = "sft"
train = { objective = "sft" }
[gates]"""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ((("BASE", "/nowhere/base"),), "15: policy.base: there is no model folder '/nowhere/base'"),
        ((("BASE", "./models/north"),), "19: policy.held_out.judge.llm.chat_template: no file at FOLDER/TEMPLATE"),
        (
            (("BASE", "org/nothing"), ("TEMPLATE", "prompts.jsonl")),
            "15: policy.base: there is no folder 'org/nothing', and as a hub id it is not in the cache",
        ),
    ],
)
def test_what_a_policy_names_is_looked_for_before_anything_is_made(write, refused, tmp_path, changes, sentence):
    path = write(("[gates]", POLICY), *changes)
    for command in ("plan", "run"):
        assert refused(command, path).startswith(f"{path}:{sentence.replace('FOLDER', str(tmp_path))}")
    assert not (tmp_path / "lake").exists()
    assert build(path, until="sample").num_sent == 4, "a build alone has no use for them"


def test_a_stage_that_there_is_not_is_refused_before_prefect_is_started(write):
    code = """
import sys
from flows.cli import main
try:
    main()
finally:
    print("prefect" in sys.modules)
"""
    command = [sys.executable, "-c", code, "run", str(write()), "--until", "trnslate"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=GUARD_SECONDS)
    stages = "read, translate, sample, score, route, pair, export"
    assert (done.returncode, done.stdout) == (1, "False\n")
    assert done.stderr == f"error: there is no stage 'trnslate' (did you mean 'translate'?); allowed are {stages}\n"


def test_a_recipe_that_is_not_there(refused, tmp_path):
    assert refused("run", tmp_path / "no.toml").startswith(f"there is no recipe {tmp_path}/no.toml; `factory init")
    assert "cannot be read: " in refused("plan", tmp_path)


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [
        (-3, "greater than or equal to 1"),
        (0, "greater than or equal to 1"),
        (99999999999999999999, "less than or equal to 1000000000"),
        ("1.5", "integer"),
    ],
)
@pytest.mark.parametrize("command", [("plan",), ("run",), ("evaluate", "build-prompts", "arena")])
def test_a_limit_that_is_no_number_of_prompts(misused, tmp_path, command, limit, allowed):
    said = misused(*command, tmp_path / "no.toml", "--limit", limit)
    assert "'--limit'" in said
    assert allowed in said


@pytest.mark.parametrize("snapshot", [-1, 2**63])
@pytest.mark.parametrize("command", [("sql", "SELECT 1"), ("export", "no.toml")])
def test_a_snapshot_that_can_be_none(misused, command, snapshot):
    assert "'--as-of': Input should be" in misused(*command, "--as-of", snapshot)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_without_the_column(write, tmp_path, suffix):
    frame = pl.DataFrame({"id": ["1"], "text": ["Why?"], "lang": ["en"]})
    frame.write_csv(tmp_path / "p.csv")
    frame.write_parquet(tmp_path / "p.parquet")
    path = write(('"prompts.jsonl"', f'"p.{suffix}"'))
    with pytest.raises(InputError, match=rf"p\.{suffix} has no column 'q'; there are 'id', 'text', 'lang'$"):
        build(path, until="read")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"[1, 2", b"PAR1\0\0"])
def test_files_without_any_row(write, tmp_path, content):
    (tmp_path / "prompts.jsonl").write_bytes(content)
    path = write()
    if content.strip():
        with pytest.raises(InputError, match=r"no row of 'questions' can be read; first row: prompts\.jsonl:1: not? "):
            build(path, until="read")
    else:
        assert build(path, until="route").counts["num_in"].sum() == 0


# Rows


def test_good_and_bad_rows_are_all_accounted_for(write, tmp_path):
    long = "long " * 200_000
    rows = [
        *PROMPTS,
        {"id": "e", "q": "", "lang": "en"},
        {"id": "w", "q": " \n\t ", "lang": "en"},
        {"id": "n", "q": None, "lang": "en"},
        {"id": "nul", "q": "a\0b", "lang": "en"},
        b'{"id": "half", "q": "a\\ud800b", "lang": "en"}',
        b'{"id": "latin", "q": "caf\xe9", "lang": "fr"}',
        {"id": "long", "q": long, "lang": "en"},
        {"id": "kl", "q": "nuqneH", "lang": "klingon"},
        {"id": "d", "q": PROMPTS[0]["q"], "lang": "en"},
        {"id": "t", "q": 7, "lang": "en"},
        {"id": "m", "lang": "en"},
        b'{"id": "cut", "q": "Wh',
        b"[1]",
        {"id": "fr", "q": "Pourquoi ?", "lang": "French"},
        {"id": "pair", "q": "A whole pair \U0001f600", "lang": "en"},
    ]
    write_lines(tmp_path / "prompts.jsonl", rows)
    path = write()
    summary = build(path)
    stages = {row["stage"]: row for row in summary.counts.iter_rows(named=True)}
    assert stages["read prompts"] == {
        "stage": "read prompts", "num_in": len(rows), "num_out": 6, "num_rejected": len(rows) - 6, "num_pending": 0,
    }  # fmt: skip
    assert all(row["num_in"] == row["num_out"] + row["num_rejected"] for row in stages.values())
    assert stages["route"]["num_out"] == 6
    assert reasons(path, "read") == {
        "empty_prompt": 3, "invalid_text": 3, "unknown_language": 1, "duplicate": 1, "invalid_row": 4,
    }  # fmt: skip
    assert reasons(path, "prompt_gate") == {"too_long": 1}
    assert any("A whole pair \U0001f600" in text for text in texts_of(path))


def test_a_prompt_longer_than_the_context_is_set_aside_for_good(write, tmp_path):
    long = "all work and no play " * 50_000
    write_lines(tmp_path / "prompts.jsonl", [*PROMPTS, {"id": "long", "q": long, "lang": "en"}])
    path = write(
        ("[prompt_gates]", "[prompt_gates]\nmax_chars = 2_000_000"),
        ("[gates]", "[gates]\nmax_chars = 2_000_000\nmax_repetition = 1"),
    )

    def fault(request):
        is_long = len(request.messages[-1]["content"]) > 100_000
        return Failure(Reason.PROMPT_TOO_LONG, "1,050,000 tokens, the context has 4,096") if is_long else None

    summary = build(path, DirectEngines(fault=fault))
    assert summary.num_sent == 5 + 4
    assert reasons(path, "sample") == {"prompt_too_long": 1}
    assert build(path, again := DirectEngines(), until="sample").num_sent == 0
    assert again.opened == []
    # another model with room for it answers it, and 1 MB of text goes through every table
    write_model(tmp_path / "models" / "north", weights=b"larger")
    assert build(path).num_sent == 5 + 5
    assert any(long in text for text in texts_of(path, "completions SEMI JOIN rewards USING (completion_id)"))


# Engines


def test_transient_failures_are_tried_again_and_poison_waits_for_a_retry(write, refused, monkeypatch, capsys):
    path = write()

    def fault(request):
        prompt, is_score = request.messages[0]["content"], len(request.messages) == 2
        if "is 2 and" in prompt and not is_score:
            return Failure(Reason.SERVER_ERROR, "out of memory")
        return Failure(Reason.POISON, "it killed the model") if "is 3 and" in prompt and is_score else None

    assert build(path, DirectEngines(fault=fault)).num_sent == 4 + 3
    assert (reasons(path, "sample"), reasons(path, "score")) == ({"server_error": 1}, {"poison": 1})
    assert build(path).num_sent == 1 + 1
    assert (reasons(path, "sample"), reasons(path, "score")) == ({}, {"poison": 1})
    retried = "reasons that can be retried are prompt_too_long, refused_by_engine, poison, invalid_reply, lost_content"
    assert refused("retry", path, "--reason", "bad luck").startswith(f"there is no reason 'bad luck'; {retried}")
    said = refused("retry", path, "--reason", "poison", "--reason", "wrong_language")
    assert said.startswith("'wrong_language' cannot be retried: that is a verdict of the recipe's gates, sources or ")
    assert retried in said
    monkeypatch.setattr(sys, "argv", ["factory", "retry", str(path), "--reason", "truncated"])
    main()
    assert capsys.readouterr().out == (
        "0 requests will be sent again by the next run; "
        "what gates or sources have rejected as truncated cannot be retried, and changes with the recipe\n"
    )
    monkeypatch.setattr(sys, "argv", ["factory", "retry", str(path), "--reason", "poison"])
    main()
    assert capsys.readouterr().out == "1 requests will be sent again by the next run\n"
    summary = build(path)
    assert summary.num_sent == 1
    assert summary.counts["num_rejected"].sum() == 0


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda models: (models / "north" / "model.safetensors").unlink(),
            r"/north' has no weights; looked for \*\.saf",
        ),
        (lambda models: (models / "north" / "config.json").write_text("{"), r"config\.json .*/north' cannot be read"),
        (
            lambda models: write_model(models / "north", "LlamaForSequenceClassification"),
            r"/north' is a classifier .*gene",
        ),
        (
            lambda models: write_model(models / "judge"),
            r"/judge' is a generator \(LlamaForCausalLM\); a reward model is",
        ),
        (lambda models: (models / "judge" / "model.safetensors").unlink(), r"/judge' has no weights"),
    ],
)
def test_a_model_that_cannot_do_its_task_is_refused_before_anything_is_sent(write, tmp_path, damage, sentence):
    path = write()
    damage(tmp_path / "models")
    with pytest.raises(EngineError, match=sentence):
        build(path, open_engine)


def impatient() -> DirectEngines:
    """Return what opens servers with little patience, and stand-ins for the rest."""
    patience = Patience(num_tries=2, first_seconds=0.01, max_seconds=0.02, down_seconds=0.05)
    return DirectEngines(open_server=lambda model, task, stop: OpenAIEngine(model, task, stop=stop, patience=patience))


MISHAPS: dict[str, tuple[Any, str | None]] = {
    "What is 0 and why?": ((500, {"error": {"message": "out of memory"}}), "server_error"),
    "What is 1 and why?": ("hang", "timeout"),
    "What is 2 and why?": (b"<html>it works</html>", "invalid_reply"),
    "What is 3 and why?": ({"choices": []}, "invalid_reply"),
    "What is 4 and why?": (DROP, "server_error"),
    "What is 5 and why?": ((400, {"error": {"message": "maximum context length is 4096"}}), "prompt_too_long"),
    "What is 6 and why?": (completion("half a pair: \ud83d!"), None),
}
"""What a server does when it is asked something, and why the row is rejected then (none: it is answered)."""


async def stumble(call):
    answer, _ = MISHAPS.get(call.text, (completion("fine"), None))
    if answer == "hang":
        await asyncio.sleep(60)
    return answer


def test_a_server_that_stumbles_is_asked_again_for_what_was_its_own_fault(write, tmp_path):
    write_lines(tmp_path / "prompts.jsonl", [{"id": text, "q": text, "lang": "en"} for text in (*MISHAPS, "And you?")])
    with ScriptedServer(stumble) as server:
        run = f'{{ urls = ["{server.url}"], timeout_seconds = 0.7 }}'
        path = write(('model = "./models/north"', f'engine = "openai"\nmodel = "north"\nrun = {run}'))
        build(path, impatient(), until="sample")
        expected = Counter(reason for _, reason in MISHAPS.values() if reason)
        assert reasons(path, "sample") == expected
        assert len(texts_of(path)) == 2
        num_calls = len(server.calls)
        server.script = echo
        assert build(path, impatient(), until="sample").num_sent == len(server.calls) - num_calls == 3
        assert reasons(path, "sample") == {"invalid_reply": 2, "prompt_too_long": 1}
    texts = texts_of(path)
    assert len(texts) == 5
    assert "half a pair: \ufffd!" in texts


def test_a_server_that_is_gone_ends_the_run_with_a_sentence(write):
    with ScriptedServer() as server:
        url = server.url
    path = write(('model = "./models/north"', f'engine = "openai"\nmodel = "north"\nrun = {{ urls = ["{url}"] }}'))
    with pytest.raises(
        EngineError, match=rf"no server can be reached at {url} for \d+ s; start one, or correct 'run.urls'"
    ):
        build(path, impatient())


# SQL of the user's own


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe whose completions are scored."""
    folder = tmp_path_factory.mktemp("scored")
    write_lines(folder / "prompts.jsonl", PROMPTS)
    for model in ("north", "judge"):
        write_model(folder / "models" / model)
    path = folder / "small.toml"
    path.write_text(RECIPE.replace("FOLDER", str(folder)).replace('north"\n[gates]', 'north"\nsamples = 2\n[gates]'))
    build(path, until="score")
    return folder


ROUTE = "SELECT prompt_id, any_value(completion_id) AS completion_id FROM candidates GROUP BY 1"


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        (f"{ROUTE}; {ROUTE}", "must hold exactly one SELECT, but holds SELECT, SELECT"),
        ("DELETE FROM completions", "must hold exactly one SELECT, but holds DELETE"),
        ("DROP TABLE prompts", "must hold exactly one SELECT, but holds DROP"),
        ("-- nothing", "must hold exactly one SELECT, but holds nothing"),
        ("SELEC 1", "is not SQL: .*syntax error"),
        ("SELECT prompt_id FROM candidates", "must return the columns prompt_id, completion_id; it returns prompt_id"),
        ("SELECT prompt_id, completion_id FROM candidate", "cannot be run: .*candidate does not exist"),
        (
            "SELECT 'p' AS prompt_id, 'c' AS completion_id",
            "returns a row for prompt p whose completion_id c is not a cand",
        ),
        (
            "SELECT prompt_id, completion_id FROM candidates",
            "whose completion_id is one of 2; a prompt has one selection",
        ),
    ],
)
def test_a_router_that_is_none_is_refused(scored, tmp_path, sql, sentence):
    (tmp_path / "own.sql").write_text(sql)
    recipe = scored / f"{tmp_path.name}.toml"
    routing = f'[routing]\nmethod = "sql"\nsql = "{tmp_path}/own.sql"\n[warehouse]'
    recipe.write_text((scored / "small.toml").read_text().replace("[warehouse]", routing))
    with pytest.raises(RecipeError, match=rf"own\.sql .*{sentence}") as caught:
        build(recipe)
    assert "\n" not in str(caught.value)


PAIR = "FROM candidates AS a JOIN candidates AS b USING (prompt_id) WHERE a.completion_id > b.completion_id"


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("UPDATE prompts SET language = 'xx'", "must hold exactly one SELECT, but holds UPDATE"),
        (
            f"SELECT prompt_id, a.completion_id AS chosen_id {PAIR}",
            "must return the columns prompt_id, chosen_id, reject",
        ),
        (
            f"SELECT prompt_id, a.completion_id AS chosen_id, 'x' AS rejected_id {PAIR}",
            "whose rejected_id x is not a cand",
        ),
    ],
)
def test_a_pair_strategy_that_is_none_is_refused(scored, tmp_path, sql, sentence):
    (tmp_path / "own.sql").write_text(sql)
    recipe = scored / f"{tmp_path.name}.toml"
    pairs = f'[[pairs]]\nstrategy = "sql"\nname = "own"\nsql = "{tmp_path}/own.sql"\n[warehouse]'
    recipe.write_text((scored / "small.toml").read_text().replace("[warehouse]", pairs))
    with pytest.raises(RecipeError, match=rf"own\.sql .*{sentence}"):
        build(recipe, until="pair")


@pytest.mark.parametrize("section", ["routing", "pairs"])
def test_sql_that_cannot_run_is_refused_before_anything_is_read(tmp_path, section):
    (tmp_path / "own.sql").write_text("SELECT prompt_id, completion_id, rewrad FROM candidates")
    text = RECIPE.replace("FOLDER", str(tmp_path))
    write_lines(tmp_path / "prompts.jsonl", PROMPTS)
    for model in ("north", "judge"):
        write_model(tmp_path / "models" / model)
    table = {"routing": '[routing]\nmethod = "sql"', "pairs": '[[pairs]]\nstrategy = "sql"\nname = "own"'}[section]
    path = tmp_path / "small.toml"
    path.write_text(text.replace("[warehouse]", f'{table}\nsql = "{tmp_path}/own.sql"\n[warehouse]'))
    with pytest.raises(RecipeError, match=r"own\.sql cannot be run: .*rewrad"):
        build(path)
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        assert lake.query("SELECT count(*) FROM prompts").item() == 0


# Warehouses


def make_folder(lake: Path) -> None:
    (lake / "catalog.sqlite").mkdir(parents=True)


def make_garbage(lake: Path) -> None:
    lake.mkdir()
    (lake / "catalog.sqlite").write_bytes(b"garbage" * 1000)


def make_file_for_data(lake: Path) -> None:
    lake.mkdir()
    (lake / "data").write_text("a file")


def make_file_for_all(lake: Path) -> None:
    lake.write_text("a file")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (make_folder, r"catalog\.sqlite: the catalog's file is missing or there is no permission to open it"),
        (make_garbage, r"catalog\.sqlite: the file is not a SQLite database; name another file, or restore it"),
        (make_file_for_data, r"the warehouse needs the folder .*lake/data, and .*lake/data is a file"),
        (make_file_for_all, r"the warehouse needs the folder .*/lake, and .*/lake is a file"),
    ],
)
def test_a_warehouse_that_is_none(write, refused, tmp_path, make, sentence):
    make(tmp_path / "lake")
    path = write()
    with pytest.raises(WarehouseError, match=sentence) as caught:
        build(path)
    assert "\n" not in str(caught.value)
    refused("status", "--recipe", path)
    refused("plan", path)


def test_a_warehouse_that_was_damaged(write, refused, tmp_path):
    path = write()
    build(path, until="read")
    catalog = tmp_path / "lake" / "catalog.sqlite"
    catalog.write_bytes(catalog.read_bytes()[:20_000])
    with pytest.raises(WarehouseError, match="catalog's file is damaged: restore it from a copy"):
        build(path)
    assert "damaged" in refused("status", "--recipe", path)
    assert "damaged" in refused("export", path)


# Scripts


TEXTS = {
    "ar": "ما هي عاصمة مصر؟ «القاهرة» \u200f(أجب بجملة)\u200f",
    "he": "מהי בירת ישראל? \u202bשָׁלוֹם\u202c",
    "fa": "پایتخت ایران کجاست؟ می\u200cخواهم بدانم",
    "ja": "日本の首都はどこですか？「東京」で合ってる？　葛\U000e0100城",
    "zh": "中国的首都在哪里？𠮷野家",
    "ko": "한국의 수도는 어디인가요? \u1112\u1161\u11ab",
    "hi": "भारत की राजधानी क्या है? क\u094dष \u200d",
    "vi": "Thủ đô Việt Nam ở đâu? Tie\u0302\u0301ng Vie\u0323\u0302t",
    "el": "Ποια είναι η πρωτεύουσα; \u03b1\u0301",
    "tr": "İstanbul mu, Iğdır mı? \r\nikinci satır\u2028üçüncü",
    "en": 'e\u0301 is not é; 👩\u200d👩\u200d👧, z͑ͫ̓a̴l̷g̸o "quoted" \\n \t tab \ufeff \x7f \x1b[0m',
}


def test_every_script_comes_out_of_the_shards_as_it_went_in(write, tmp_path):
    write_lines(tmp_path / "prompts.jsonl", [{"id": code, "q": text, "lang": code} for code, text in TEXTS.items()])
    path = write(
        ('["en", "fr"]', json.dumps(list(TEXTS))),
        ("[gates]", "samples = 2\n[gates]")
        if False
        else ("[warehouse]", '[export]\nformats = ["parquet", "jsonl"]\n[warehouse]'),
    )
    summary = build(path, until="export")
    folder = Path(summary.export_path)
    for read, suffix in ((pl.read_parquet, "parquet"), (pl.read_ndjson, "jsonl")):
        frames = [read(file) for file in sorted((folder / "sft").glob(f"*.{suffix}")) if file.stat().st_size]
        rows = [row for frame in frames for row in frame.iter_rows(named=True)]
        found = {row["language"]: [turn["content"] for turn in row["messages"]] for row in rows}
        assert {code: turns[0] for code, turns in found.items()} == TEXTS
        assert all(turns[1].endswith(f" to {TEXTS[code]}") for code, turns in found.items())
