"""Gates: the facts of a row and the thresholds of a build make its verdict."""

from pathlib import Path
from typing import Any

import pytest

from schemas.errors import RecipeError
from tests.warehouse.small_builds import CONFIG, TEXTS, Facts, make_recipe, open_lake
from warehouse.build.curate import gate, gate_prompts
from warehouse.build.scope import Scope

GATES = {
    "min_chars": 4,
    "max_chars": 40,
    "max_repetition": 0.5,
    "min_language_score": 0.6,
    "min_script_share": 0.6,
    "refusal_patterns": ["(?i)i cannot", "申し訳"],
}
WRONG: dict[str, Any] = {"detected_language": "fr", "language_score": 0.6}

ANSWERS: list[tuple[str, dict[str, Any], str | None, str]] = [
    ("en", {}, None, ""),
    ("en", {"text": ""}, "empty", "no visible character"),
    ("ar", {"text": " \u3000\u200f\n\u200b"}, "empty", "no visible character"),
    ("hi", {"text": "\u094d\u0902\u0901\u0903"}, None, ""),
    ("en", {"text": "", "finish_reason": "length"}, "empty", "no visible character"),
    ("en", {"text": "<think>why</think> 4."}, "stray_reasoning", "thinks aloud: <think>"),
    ("he", {"text": "כי</think>\nארבע"}, "stray_reasoning", "thinks aloud: </think>"),
    ("en", {"text": "<longcat_think>why"}, "stray_reasoning", "thinks aloud: <longcat_think>"),
    ("en", {"text": "\n <analysis>\nwhy</analysis>"}, "stray_reasoning", "thinks aloud: <analysis>"),
    ("en", {"text": "2+2\n&lt;/think&gt;\nfour"}, "stray_reasoning", "thinks aloud: &lt;/think&gt;"),
    ("en", {"text": "`x` <analysis> is a tag."}, None, ""),
    ("en", {"text": "It is:\n<analysis>4</analysis>"}, None, ""),
    ("zh", {"text": "[THINK]为什么", "finish_reason": "length"}, "stray_reasoning", "thinks aloud: [THINK]"),
    ("ja", {"text": "◁think▷四◁/think▷四です"}, "stray_reasoning", "thinks aloud: ◁think▷"),
    ("hi", {"text": "<|channel|>analysis<|message|>चार"}, "stray_reasoning", "thinks aloud: <|channel|>"),
    (
        "ar",
        {"text": "", "reasoning": "لأن", "finish_reason": "length"},
        "stray_reasoning",
        "the thinking was cut off or never closed",
    ),
    ("he", {"text": "", "reasoning": "ארבע"}, "empty", "all of it was reasoning; no answer follows"),
    ("ja", {"text": "`<think>` は四です。"}, None, ""),
    ("en", {"text": "```\n<think>\n```\nI <b>think</b> so."}, None, ""),
    ("en", {"text": "It was four.", "reasoning": "<think>"}, None, ""),
    ("en", {"finish_reason": "length", **WRONG}, "truncated", "stopped at the limit of 5 tokens"),
    ("ja", {"text": "四つ"}, "too_short", "2 chars, at least 4 needed"),
    ("ja", {"text": "四つです"}, None, ""),
    ("vi", {"text": TEXTS["vi"][:3], **WRONG}, "too_short", "3 chars, at least 4 needed"),
    ("he", {"text": "א" * 40}, None, ""),
    ("he", {"text": "א" * 41, **WRONG}, "too_long", "41 chars, at most 40 allowed"),
    ("de", {**WRONG, "repetition": 0.9}, "wrong_language", "detected fr with score 0.60, expected de"),
    ("de", {**WRONG, "language_score": 0.59}, None, ""),
    ("de", {"detected_language": None, "language_score": None}, None, ""),
    ("de", {"detected_language": "de", "language_score": 0.99}, None, ""),
    ("zh-Hant", {"detected_language": "zh", "language_score": 0.99}, None, ""),
    ("zh-Hant", {**WRONG}, "wrong_language", "detected fr with score 0.60, expected zh-Hant"),
    ("ar", {"script_share": 0.59}, "wrong_script", "59% of the letters are in the script of ar, at least 60% needed"),
    ("zh-Hant", {**WRONG, "script_share": 0.0}, "wrong_language", "detected fr with score 0.60, expected zh-Hant"),
    ("hi", {"script_share": 0.6}, None, ""),
    ("he", {"script_share": None}, None, ""),
    ("zh", {"repetition": 0.5}, None, ""),
    ("en", {"repetition": 0.75, "text": "I CANNOT"}, "repetition", "repetition 0.75, at most 0.50 allowed"),
    ("en", {"text": "Sorry, I CANNOT."}, "refusal", "refuses: I CANNOT"),
    ("ja", {"text": "大変申し訳ありません"}, "refusal", "refuses: 申し訳"),
]


def test_every_answer_gets_the_first_reason_that_applies(tmp_path: Path) -> None:
    recipe = make_recipe(gates=GATES)
    facts = Facts(recipe)
    expected = {}
    for index, (language, changes, reason, detail) in enumerate(ANSWERS):
        row = facts.completion(facts.prompt(f"p{index}", language), "a", **changes)
        if reason:
            expected[row["completion_id"]] = (CONFIG, "gate", "", reason, detail, language, "org/a")
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        assert gate(Scope.open(lake, CONFIG), recipe) == len(expected)
        rejections = lake.query("SELECT row_id, * EXCLUDE (row_id) FROM rejections")
        found = {
            row["row_id"]: tuple(
                row[name] for name in ("config_id", "stage", "settings_id", "reason", "detail", "language", "model")
            )
            for row in rejections.iter_rows(named=True)
        }
        assert found == expected
        before = lake.snapshot()
        assert gate(Scope.open(lake, CONFIG), recipe) == 0
        assert lake.snapshot() == before
        facts.completion(facts.prompt("late", "de"), "b", text="")
        facts.write(lake)
        assert gate(Scope.open(lake, CONFIG), recipe) == 1


def test_an_answer_is_judged_by_the_tags_of_its_own_teacher(tmp_path: Path) -> None:
    tags = {"a": ["<analysis>", "</analysis>"], "b": ["思考:", "答案:"], "c": ["<o'k>", "</o'k>"], "d": None}
    recipe = make_recipe(
        teachers=[{"name": name, "model": f"org/{name}", "reasoning": pair} for name, pair in tags.items()]
    )
    facts = Facts(recipe)
    expected = {}
    for teacher in tags:
        for writer, pair in tags.items():
            for tag in pair or ():
                prompt = facts.prompt(f"{teacher} {tag}", "en")
                row = facts.completion(prompt, teacher, text=f"It is Paris. {tag}is this right?")
                if teacher == writer:
                    expected[row["completion_id"]] = ("stray_reasoning", f"thinks aloud: {tag}")
    facts.completion(facts.prompt("about", "en"), "a", text="Thinking stands in `<analysis>`.")
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        assert gate(Scope.open(lake, CONFIG), recipe) == len(expected) == 6
        found = lake.query("SELECT row_id, reason, detail FROM rejections").rows()
        assert {row_id: (reason, detail) for row_id, reason, detail in found} == expected


def test_gates_can_be_switched_off(tmp_path: Path) -> None:
    off = {"language": False, "truncated": False, "stray_reasoning": False, "min_chars": 0, "max_repetition": 1}
    recipe = make_recipe(gates=off)
    facts = Facts(recipe)
    text = "<think>why"
    facts.completion(
        facts.prompt("p", "en"), "a", text=text, finish_reason="length", repetition=1.0, script_share=0.0, **WRONG
    )
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        assert gate(Scope.open(lake, CONFIG), recipe) == 0


def test_only_rows_of_the_build_are_judged(tmp_path: Path) -> None:
    recipe = make_recipe()
    facts = Facts(recipe)
    prompt = facts.prompt("p", "en")
    answer = facts.completion(prompt, "a", text="")
    facts.completion(prompt, "foreign", text="")
    facts.completion(prompt, "a", sample_index=7, text="")
    sibling = facts.prompt("p", "ar", parent=prompt)
    facts.translated(answer, sibling, text="")
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        gate(Scope.open(lake, CONFIG), recipe)
        scope = Scope.open(lake, CONFIG)
        assert answer["completion_id"] in set(scope.query("SELECT row_id FROM rejections")["row_id"])
        assert scope.query("FROM kept_completions").is_empty()


def test_prompts_are_judged_and_their_translations_go_with_them(tmp_path: Path) -> None:
    recipe = make_recipe(prompt_gates={"min_language_score": 0.6, "max_chars": 20})
    facts = Facts(recipe)
    good = facts.prompt("good", "zh-Hant", detected_language="zh", language_score=0.9)
    unsure = facts.prompt("good", "ja", parent=good, detected_language="en", language_score=0.5)
    bad = facts.prompt("good", "de", parent=good, detected_language="nl", language_score=0.6)
    latin = facts.prompt("good", "hi", parent=good, detected_language="it", language_score=0.1, script_share=0.25)
    long = facts.prompt("long", "en", messages=[{"role": "user", "content": "答" * 10}] * 3)
    facts.prompt("long", "ja", parent=long, detected_language=None)
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        assert gate_prompts(Scope.open(lake, CONFIG), recipe) == 3
        assert gate_prompts(Scope.open(lake, CONFIG), recipe) == 0
        assert set(lake.query("SELECT row_id, stage, reason, detail, model FROM rejections").iter_rows()) == {
            (
                bad["prompt_id"],
                "prompt_gate",
                "wrong_language",
                "detected nl with score 0.60, expected de",
                "org/translator",
            ),
            (
                latin["prompt_id"],
                "prompt_gate",
                "wrong_script",
                "25% of the letters are in the script of hi, at least 50% needed",
                "org/translator",
            ),
            (long["prompt_id"], "prompt_gate", "too_long", "30 chars, at most 20 allowed", None),
        }
        kept = set(Scope.open(lake, CONFIG).query("SELECT prompt_id FROM kept_prompts")["prompt_id"])
        assert kept == {good["prompt_id"], unsure["prompt_id"]}


LINGUIST = {"model": "org/translator"}


@pytest.mark.parametrize("translation", [None, LINGUIST, LINGUIST | {"prompts": False}])
def test_prompts_in_languages_that_are_neither_asked_in_nor_translated_from_are_rejected(
    tmp_path: Path, translation: Any
) -> None:
    recipe = make_recipe(languages=["en", "zh"], translation=translation)
    facts = Facts(recipe)
    for code in ("en", "zh"):
        facts.prompt("p", code)
    others = [facts.prompt("p", code) for code in ("ar", "zh-Hant", "vi")]
    is_translated = translation == LINGUIST
    with open_lake(tmp_path) as lake:
        facts.write(lake)
        assert gate_prompts(Scope.open(lake, CONFIG), recipe) == (0 if is_translated else 3)
        found = lake.query("SELECT row_id, stage, reason, detail, language FROM rejections").rows()
        assert set(found) == {
            (
                row["prompt_id"],
                "prompt_gate",
                "other_language",
                f"in {row['language']}; the recipe's languages are en, zh",
                row["language"],
            )
            for row in ([] if is_translated else others)
        }
        assert Scope.open(lake, CONFIG).query("FROM kept_prompts").height == (5 if is_translated else 2)


def test_a_pattern_that_is_none_is_named(tmp_path: Path) -> None:
    recipe = make_recipe(gates={"refusal_patterns": ["fine", "(?=no)"]})
    with (
        open_lake(tmp_path) as lake,
        pytest.raises(RecipeError, match=r"refusal_patterns: '\(\?=no\)' is not a regular"),
    ):
        gate(Scope.open(lake, CONFIG), recipe)
