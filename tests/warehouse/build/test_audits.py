"""Audits: a sound build passes, and each kind of damage is found and named."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from schemas.errors import AuditError
from tests.warehouse.small_builds import CONFIG, Facts, make_recipe, open_lake
from warehouse.build.audits import run_audits
from warehouse.build.curate import gate, gate_prompts, make_pairs, route
from warehouse.build.scope import Scope
from warehouse.lake import slices
from warehouse.lake.lake import Lake

TEACHERS = [{"name": name, "model": f"org/{name}", "samples": 1} for name in "ab"]


def sound_build(folder: Path, **sections: Any) -> tuple[Lake, Facts]:
    """A finished build: a prompt in two languages, answered by both teachers; one gated answer, one that failed."""
    recipe = make_recipe(languages=["en", "ar"], teachers=TEACHERS, **sections)
    facts = Facts(recipe)
    prompt = facts.prompt("p", "en")
    sibling = facts.prompt("p", "ar", parent=prompt)
    answer = facts.completion(prompt, "a", (2.0,))
    facts.completion(prompt, "b", (1.0,))
    facts.completion(sibling, "a", (0.5,))
    facts.completion(sibling, "b", (3.0,))
    facts.translated(answer, sibling, (0.0,))
    empty = facts.prompt("empty", "ar")
    facts.completion(empty, "a", text="")
    other = facts.prompt("empty", "en", parent=empty)
    facts.completion(other, "a", (1.0,))
    failed = facts.completion(empty, "b")
    facts.completions.remove(failed)
    facts.reject("sample", failed["completion_id"], settings_id="lane-b", reason="poison")
    unscored = facts.completion(other, "b")
    facts.reject("score", unscored["completion_id"], settings_id="reward-0", reason="prompt_too_long")
    lost = facts.translated(facts.completions[-2], empty)
    facts.completions.remove(lost)
    facts.reject("translate_completions", lost["completion_id"], settings_id="translator", reason="lost_content")
    lake = open_lake(folder)
    facts.write(lake)
    with Scope.open(lake, CONFIG) as scope:
        gate_prompts(scope, recipe)
        gate(scope, recipe)
        route(scope, recipe)
        make_pairs(scope, recipe)
    return lake, facts


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Facts]:
    """The folder of a sound build, and its facts; whoever damages them has copies."""
    folder = tmp_path_factory.mktemp("sound")
    lake, facts = sound_build(folder)
    lake.close()
    return folder, facts


def test_a_sound_build_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [{}, {"strategy": "in_language_vs_translated"}]
    lake, _ = sound_build(tmp_path, pairs=pairs)
    with lake:
        scope = Scope.open(lake, CONFIG)
        assert {audit.num_rows for audit in run_audits(scope)} == {0}
        assert lake.query("SELECT count(*) FROM pairs").item() == 3
        stages = scope.query("FROM stages")
        for num_prompts in (10_000, 1):
            monkeypatch.setattr(slices, "SLICE_PROMPTS", num_prompts)
            assert_frame_equal(scope.count_each_stage(), stages)
        assert {row[0]: row[1:] for row in stages.iter_rows()} == {
            "read prompts": (2, 2, 0, 0),
            "translate prompts": (2, 2, 0, 0),
            "gate prompts": (4, 4, 0, 0),
            "sample": (8, 7, 1, 0),
            "join recorded": (0, 0, 0, 0),
            "translate completions": (2, 1, 1, 0),
            "gate completions": (8, 7, 1, 0),
            "score": (7, 6, 1, 0),
            "route": (3, 3, 0, 0),
            "pair": (3, 3, 0, 0),
        }


def _repeat(table: str) -> Callable[[Lake, Facts], None]:
    def damage(lake: Lake, facts: Facts) -> None:
        lake.transact(lambda cursor: cursor.execute(f"INSERT INTO {table} (FROM {table} LIMIT 1)"))

    return damage


def _delete(table: str, where: str) -> Callable[[Lake, Facts], None]:
    def damage(lake: Lake, facts: Facts) -> None:
        assert lake.delete(table, where), "nothing was damaged"

    return damage


def _invert(lake: Lake, facts: Facts) -> None:
    lake.transact(
        lambda cursor: cursor.execute(
            "UPDATE pairs SET chosen_id = rejected_id, rejected_id = chosen_id WHERE language = 'en'"
        )
    )


def _choose_translation(lake: Lake, facts: Facts) -> None:
    lake.transact(
        lambda cursor: cursor.execute(
            "UPDATE pairs SET chosen_id = (SELECT completion_id FROM completions WHERE origin = 'translated') "
            "WHERE language = 'ar'"
        )
    )


def _answer_twice(lake: Lake, facts: Facts) -> None:
    facts.reject("sample", facts.completions[0]["completion_id"], settings_id="lane-a", reason="poison")
    facts.write(lake)


def _foreign_language(lake: Lake, facts: Facts) -> None:
    lake.transact(lambda cursor: cursor.execute("UPDATE completions SET language = 'en' WHERE language = 'ar'"))


DAMAGE: list[tuple[str, Callable[[Lake, Facts], None], str]] = [
    ("prompts twice", _repeat("prompts"), "answered_twice: 1"),
    ("completions twice", _repeat("completions"), "answered_twice: 1"),
    ("rewards twice", _repeat("rewards"), "answered_twice: 1"),
    ("answered and rejected", _answer_twice, "answered_twice: 1"),
    ("no prompt", _delete("prompts", "language = 'ar' AND parent_id IS NOT NULL"), "orphans: .*no prompt"),
    ("no completion", _delete("completions", "origin = 'translated'"), "orphans: .*no such completion"),
    ("no chosen", _delete("rewards", "reward = 3"), "orphans: .*not a candidate"),
    ("wrong way round", _invert, "pairs_against_reward: 1"),
    ("translation chosen", _choose_translation, "translated_chosen: 1"),
    ("wrong language", _foreign_language, "strange_languages: .*answers a prompt in ar"),
    (
        "failure forgotten",
        _delete("rejections", "stage = 'sample'"),
        r"unaccounted: 1 \(sample: 8 in, 7 out, 0 rejected",
    ),
    ("score forgotten", _delete("rejections", "stage = 'score'"), r"unaccounted: 1 \(score: 7 in, 6 out, 0 rejected"),
]


@pytest.mark.parametrize(("damage", "message"), [row[1:] for row in DAMAGE], ids=[row[0] for row in DAMAGE])
def test_damage_is_found(
    sound: tuple[Path, Facts], tmp_path: Path, damage: Callable[[Lake, Facts], None], message: str
) -> None:
    folder, facts = sound
    with open_lake(Path(shutil.copytree(folder, tmp_path / "copy"))) as lake:
        damage(lake, deepcopy(facts))
        with pytest.raises(AuditError, match=f"build {CONFIG} fails .*{message}"):
            run_audits(Scope.open(lake, CONFIG))


def test_pairs_may_go_against_the_reward_where_their_strategy_says_so(tmp_path: Path) -> None:
    pairs = [{"strategy": "strong_vs_weak", "strong": "a", "weak": "b", "against_reward": True}]
    lake, _ = sound_build(tmp_path, pairs=pairs)
    with lake:
        run_audits(Scope.open(lake, CONFIG))
        assert sorted(lake.query("SELECT margin < 0 AS is_against FROM pairs")["is_against"]) == [False, True]
