"""Whole builds over stand-in engines: what is sent, what is kept, and that a rerun sends the difference alone."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from factory.stages.sources import read_source
from flows.build import recorded, source_reading
from flows.build import run as way
from flows.build.plan import make_plan
from flows.build.run import execute_build
from schemas.errors import FactoryError, InputError
from schemas.recipe.recipe import load_recipe
from tests.flows.conftest import write_prompts
from tests.flows.standin import StandInEngines
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake


@pytest.fixture
def engines(tmp_path: Path) -> StandInEngines:
    return StandInEngines(tmp_path / "asked.log", batch=32, seconds=0.0, max_in_flight=64)


def build(path: Path, engines: StandInEngines, **settings):
    return execute_build(load_recipe(path), open_engine=engines, **{"quiet": True, **settings})


def test_every_row_is_accounted_for(write_recipe, engines):
    path = write_recipe()
    planned = make_plan(load_recipe(path)).lanes
    summary = build(path, engines)
    counts = {row["stage"]: row for row in summary.counts.iter_rows(named=True)}
    assert all(row["num_in"] == row["num_out"] + row["num_rejected"] + row["num_pending"] for row in counts.values())
    assert all(row["num_pending"] == 0 for row in counts.values())
    assert counts["read prompts"]["num_out"] == 40
    assert counts["translate prompts"]["num_out"] == 3 * 40
    assert counts["sample"]["num_out"] == 2 * 4 * 40
    assert counts["translate completions"]["num_out"] == 3 * 40
    assert counts["score"]["num_in"] == counts["gate completions"]["num_out"]
    assert summary.num_sent == sum(lane.num_to_send for lane in planned)
    assert Path(summary.export_path, "manifest.json").is_file()


def test_prompts_that_are_not_to_be_translated_are_not_waited_for(write_recipe, engines):
    path = write_recipe()
    path.write_text(path.read_text().replace("[translation]", "[translation]\nprompts = false"))
    summary = build(path, engines)
    assert set(summary.counts["num_pending"]) == {0}
    assert summary.export_path is not None
    assert dict(summary.counts.select("stage", "num_in").iter_rows())["translate prompts"] == 0


def test_a_rerun_sends_nothing(write_recipe, engines):
    path = write_recipe()
    first = build(path, engines)
    asked = len(engines.asked())
    again = build(path, engines)
    assert again.num_sent == 0
    assert len(engines.asked()) == asked
    assert again.export_path == first.export_path
    assert all(lane.num_to_send == 0 for lane in make_plan(load_recipe(path)).lanes)


def test_files_are_read_again_only_when_their_bytes_or_the_limit_changed(write_recipe, engines, tmp_path, monkeypatch):
    path, file = write_recipe(), tmp_path / "prompts.jsonl"

    def stop_reading(source, **options):
        yield from islice(read_source(source, batch_rows=7, **options), 2)
        raise InputError("the disk is gone")

    monkeypatch.setattr(source_reading, "read_source", stop_reading)
    with pytest.raises(InputError, match="the disk is gone"):
        build(path, engines, until="read")
    monkeypatch.setattr(source_reading, "read_source", read_source)
    first = build(path, engines, until="read")
    assert first.counts["num_out"][0] == 40
    monkeypatch.setattr(source_reading, "read_source", stop_reading)
    file.write_bytes(file.read_bytes())
    again = build(path, engines, until="read")
    assert again.counts.equals(first.counts)
    for changed in ({"limit": 50}, {}):
        if not changed:
            write_prompts(file, 41)
        with pytest.raises(InputError, match="the disk is gone"):
            build(path, engines, until="read", **changed)


@pytest.mark.parametrize("is_mended_while_read", [True, False])
def test_a_file_that_is_written_while_it_is_read_is_read_again(
    write_recipe, engines, tmp_path, monkeypatch, is_mended_while_read
):
    path, file = write_recipe(), tmp_path / "prompts.jsonl"
    whole = file.read_bytes()

    def read_while_written(source, **options):
        file.write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))
        yield from read_source(source, **options)
        if is_mended_while_read:
            file.write_bytes(whole)

    monkeypatch.setattr(source_reading, "read_source", read_while_written)
    assert build(path, engines, until="read").counts["num_out"][0] == 4
    monkeypatch.setattr(source_reading, "read_source", read_source)
    file.write_bytes(whole)
    assert build(path, engines, until="read").counts["num_out"][0] == 40


@pytest.mark.parametrize(("module", "moment"), [(way, "gate_prompts"), (recorded, "read_answers")])
def test_recorded_answers_that_change_before_or_while_they_are_read_are_not_stored(
    write_recipe, engines, tmp_path, monkeypatch, module, moment
):
    path, file = write_recipe(languages=("en",)), tmp_path / "answers.jsonl"
    answers = 'engine = "recorded"\nrecorded = { path = "answers.jsonl", columns = { text = "a", key = "id" } }'
    path.write_text(path.read_text().replace('model = "./models/north"', answers))
    file.write_text('{"id": "row-1", "a": "as planned"}\n')
    original = getattr(module, moment)

    def change_and_go_on(*arguments, **options):
        file.write_text('{"id": "row-1", "a": "as planned, or not"}\n')
        return original(*arguments, **options)

    monkeypatch.setattr(module, moment, change_and_go_on)
    with pytest.raises(InputError, match=r"answers\.jsonl changed while the run was under way; run again"):
        build(path, engines, until="sample")
    monkeypatch.setattr(module, moment, original)
    build(path, engines, until="sample")
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        texts = lake.query("SELECT text FROM completions WHERE origin = 'recorded'")["text"].to_list()
    assert texts == ["as planned, or not"]


def test_what_was_said_of_a_row_is_forgotten_when_the_row_has_changed(write_recipe, engines, tmp_path, capsys):
    path, file = write_recipe(), tmp_path / "prompts.jsonl"
    good = file.read_text().splitlines()[:5]
    found = []
    for refused in ('{"id": "refused", "q": ""}', '{"id": "refused"}', '{"id": "refused", "q": "Mended"}', None):
        file.write_text("".join(f"{line}\n" for line in (*good, refused) if line))
        (read, *_) = build(path, engines, until="read", quiet=False).counts.rows()
        with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
            found.append((read[1:4], lake.query("SELECT reason FROM rejections")["reason"].to_list()))
    assert found == [((6, 5, 1), ["empty_prompt"]), ((6, 5, 1), ["invalid_row"]), ((6, 6, 0), []), ((6, 6, 0), [])]
    assert "1 of the build are no longer in its sources and stay in it" in capsys.readouterr().err


def test_a_new_language_costs_only_its_own_requests(write_recipe, engines):
    build(write_recipe(languages=("en", "fr")), engines)
    known = [(task, request, name) for task, _, request, name in engines.asked()]
    path = write_recipe(languages=("en", "fr", "ja"))
    planned = make_plan(load_recipe(path)).lanes
    assert {lane.language for lane in planned if lane.num_to_send} == {"ja"}
    summary = build(path, engines)
    fresh = [(task, request, name) for task, _, request, name in engines.asked()[len(known) :]]
    assert len(fresh) == len(set(fresh) - set(known)) == summary.num_sent
    # 40 prompt translations, 2 x 40 completions, 40 completion translations, 120 rewards
    assert summary.num_sent == 40 + 80 + 40 + 120


def test_a_new_teacher_costs_only_its_own_requests(write_recipe, engines):
    build(write_recipe(teachers=("north",)), engines)
    before = len(engines.asked())
    build(write_recipe(teachers=("north", "south")), engines)
    fresh = Counter((task, name) for task, _, _, name in engines.asked()[before:])
    assert fresh == {("generate", "south"): 160, ("score", "judge"): 160}


def test_new_prompts_in_the_source_are_picked_up(write_recipe, engines, tmp_path):
    path = write_recipe()
    build(path, engines)
    before = len(engines.asked())
    write_prompts(tmp_path / "prompts.jsonl", 42)
    summary = build(path, engines)
    assert summary.num_sent == len(engines.asked()) - before == 2 * 3 + 2 * 2 * 4 + 2 * 3 + (2 * 2 * 4 + 2 * 3)


def test_every_build_holds_out_the_share_of_its_own_recipe(write_recipe, engines):
    """Whichever read a prompt first; what another source holds out, as an evaluation's does, stays held out."""
    path = write_recipe()
    text = path.read_text()
    shares: dict[str, Any] = {}
    for name, percent in (("questions", 50), ("questions", 0), ("questions", 100), ("renamed", 0)):
        path.write_text(text.replace('"questions"', f'"{name}"\neval_percent = {percent}'))
        config_id = build(path, engines, until="read").config_id
        with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
            for other in (*shares, config_id):
                scope = Scope.open(lake, other)
                found = scope.query("SELECT count(*) FILTER (split = 'eval') FROM kept_prompts").item()
                assert shares.setdefault(other, found) == found
    half = next(iter(shares.values()))
    assert 10 < half < 30
    assert list(shares.values()) == [half, 0, 40, half]


def test_another_pair_setting_sends_nothing_and_lives_beside_the_first(write_recipe, engines):
    first = build(write_recipe(), engines)
    path = write_recipe()
    path.write_text(path.read_text().replace('"best_vs_worst"', '"best_vs_worst", min_margin = 4.0'))
    second = build(path, engines)
    assert second.num_sent == 0
    assert second.config_id != first.config_id
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        sizes = dict(
            lake.query("SELECT config_id, count(*) FROM pairs WHERE strategy = 'best_vs_worst' GROUP BY 1").iter_rows()
        )
        dropped = lake.query(
            "SELECT count(*) FROM rejections WHERE stage = 'pair:best_vs_worst' AND config_id = ?", [second.config_id]
        )
    assert 0 < sizes[second.config_id] < sizes[first.config_id]
    assert dropped.item() == sizes[first.config_id] - sizes[second.config_id]


def test_stages_and_limits(write_recipe, engines):
    path = write_recipe()
    summary = build(path, engines, until="sample", limit=3)
    assert summary.export_path is None
    assert Counter(task for task, *_ in engines.asked()) == {"translate": 9 + 9, "generate": 24}
    for act in (build, lambda path, _, limit: make_plan(load_recipe(path), limit=limit)):
        with pytest.raises(InputError, match="--limit 2 allows 2 prompts, and the build has read 3 already"):
            act(path, engines, limit=2)
    with pytest.raises(FactoryError, match=r"no stage 'polish'; allowed are read, translate, .*export"):
        build(path, engines, until="polish")


def test_a_plan_counts_the_answers_of_a_teacher_under_its_new_name(write_recipe, engines):
    path = write_recipe(languages=("en", "fr"))
    text = path.read_text()
    path.write_text(text.replace('completions_of = ["north"]', ""))
    build(path, engines, until="sample")
    path.write_text(text.replace('"north"', '"renamed"'))
    planned = {(lane.stage, lane.model): lane.num_to_send for lane in make_plan(load_recipe(path)).lanes}
    assert planned["sample", "renamed"] == 0
    assert planned["translate_completions", "translator"] == 40
    assert build(path, engines, until="sample").num_sent == 40


def test_usage_counts_what_was_asked_and_a_plan_what_a_row_costs(write_recipe, engines, tmp_path):
    """A text that is translated sentence by sentence is one row of several requests; one without letters takes none."""
    texts = ["Tell me about rivers. Say it twice. Is it cold?", "Name a stone! It must be a grey one.", "12345 + 67890"]
    rows = [json.dumps({"id": f"row-{number}", "q": text}) for number, text in enumerate(texts)]
    path, file = write_recipe(languages=("en", "fr", "he")), tmp_path / "prompts.jsonl"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    summary = build(path, engines, until="translate")
    asked = [task for task, *_ in engines.asked()]
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        (usage,) = lake.query("FROM usage").to_dicts()
        scope = Scope.open(lake, summary.config_id)
        assert scope.query("SELECT num_requests FROM usage_by_stage").item() == len(asked)
    assert len(asked) > 2 * len(texts)
    assert (usage["num_requests"], usage["num_rows"]) == (len(asked), 2 * len(texts))
    file.write_text("\n".join([*rows, json.dumps({"id": "new", "q": "And now. Something else."})]), encoding="utf-8")
    planned = [
        lane for lane in make_plan(load_recipe(path)).lanes if lane.stage == "translate_prompts" and lane.num_to_send
    ]
    assert {lane.language for lane in planned} == {"fr", "he"}
    per_row = (usage["num_prompt_tokens"] + usage["num_completion_tokens"]) / usage["num_rows"]
    assert [lane.num_tokens for lane in planned] == [round(per_row)] * 2


def test_a_plan_keeps_to_the_smaller_of_two_limits(write_recipe):
    path = write_recipe()
    path.write_text(path.read_text().replace('language = "en"', 'language = "en"\nlimit = 5', 1))
    for limit, num_prompts in ((None, 5), (3, 3), (20, 5)):
        planned = make_plan(load_recipe(path), limit=limit).lanes
        assert {lane.num_wanted for lane in planned if lane.stage == "sample"} == {num_prompts}


def test_what_identifies_a_build_is_neither_a_path_nor_how_it_runs(write_recipe, engines, tmp_path):
    first = build(write_recipe(), engines, until="read")
    moved = write_recipe(name="moved", extra="slots = []")
    text = (
        moved.read_text().replace("commit_rows = 500", "commit_rows = 77").replace('name = "moved"', 'name = "small"')
    )
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    moved.write_text(text.replace("./models/", "./elsewhere/"))
    assert build(moved, engines, until="read").config_id == first.config_id
    (tmp_path / "elsewhere" / "north" / "config.json").write_text('{"name": "another"}')
    assert build(moved, engines, until="read").config_id != first.config_id
