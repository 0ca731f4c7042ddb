from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.engines.base import Failure, Message, Reply, Request
from factory.stages.outputs import Provenance
from factory.stages.translation import Translator, assemble, plan_translation
from factory.texts.langid import Detect
from schemas.reasons import Reason
from schemas.recipe.models import Translation

NLLB = Translation(model="nllb")
LLM = Translation(engine="vllm", model="llm", system_prompt="You translate.")
TEXT = "Say hello to {name}. Then pay 5 euros!\n\n```py\nx = 1\n```\n- See https://a.b/c"


def pending_prompt(number: int = 0, text: str = TEXT, **other: Any) -> dict[str, Any]:
    return {
        "prompt_id": f"t{number}",
        "parent_id": f"p{number}",
        "root_id": f"p{number}",
        "source_language": "en",
        "language": "ar",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is dew?"},
            {"role": "assistant", "content": "Water."},
            {"role": "user", "content": text},
        ],
        "source": "mine",
        "source_row": "7",
        "split": "eval",
    } | other


def pending_completion(number: int = 0, text: str = TEXT) -> dict[str, Any]:
    return {
        "completion_id": f"tc{number}",
        "parent_id": f"c{number}",
        "prompt_id": f"t{number}",
        "root_id": f"p{number}",
        "source_language": "en",
        "language": "ar",
        "text": text,
        "model": "writer",
        "model_fingerprint": "w" * 32,
        "round": 0,
        "sample_index": 2,
        "finish_reason": "stop",
    }


def to_arabic(text: str) -> str:
    """Write every Latin letter as an Arabic one, but for what is in code, braces or links."""
    return "".join(chr(0x0627 + ord(char) % 20) if char.isascii() and char.isalpha() else char for char in text)


def answer(request: Request) -> Reply:
    return Reply(
        request.request_id,
        text=to_arabic(request.messages[-1]["content"]),
        num_prompt_tokens=3,
        num_completion_tokens=2,
    )


def test_every_turn_of_a_prompt_is_translated_and_keeps_its_origin(
    lane: Provenance, detect: Detect, run_stage: Any
) -> None:
    translator = Translator(lane, NLLB, "prompts", detect=detect)
    row = run_stage(translator, [pending_prompt()], answer, "prompts").rows.to_dicts()[0]
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant", "user"]
    assert [turn["content"] for turn in row["messages"][:3]] == [
        to_arabic(t) for t in ("Be brief.", "What is dew?", "Water.")
    ]
    hello, pay, see = map(to_arabic, ("Say hello to", "Then pay 5 euros!", "See"))
    assert row["messages"][3]["content"] == f"{hello} {{name}}. {pay}\n\n```py\nx = 1\n```\n- {see} https://a.b/c"
    assert (row["prompt_id"], row["parent_id"], row["root_id"], row["split"]) == ("t0", "p0", "p0", "eval")
    assert (row["source"], row["source_row"], row["language"]) == ("mine", "7", "ar")
    assert (row["translator"], row["settings_id"]) == (lane.model, lane.settings_id)
    assert row["detected_language"] == "ar"


def test_a_translated_completion_names_its_writer_and_its_translator(lane: Provenance, run_stage: Any) -> None:
    translator = Translator(lane, NLLB, "completions", detect=None)
    row = run_stage(translator, [pending_completion()], answer, "completions").rows.to_dicts()[0]
    assert (row["completion_id"], row["parent_id"], row["prompt_id"]) == ("tc0", "c0", "t0")
    assert (row["model"], row["model_fingerprint"], row["translator"]) == ("writer", "w" * 32, lane.model)
    assert (row["origin"], row["sample_index"], row["finish_reason"]) == ("translated", 2, "stop")
    assert (row["num_prompt_tokens"], row["num_completion_tokens"]) == (9, 6)
    assert row["num_chars"] == len(row["text"])


def test_a_sentence_translator_gets_sentences_and_both_languages(lane: Provenance) -> None:
    plan = plan_translation(pending_prompt(), "t0", NLLB)
    assert [request.request_id for request in plan.requests] == [f"t0/{number}" for number in range(6)]
    assert [request.messages[0]["content"] for request in plan.requests[3:]] == [
        "Say hello to",
        "Then pay 5 euros!",
        "See",
    ]
    assert {(request.source_language, request.target_language) for request in plan.requests} == {("en", "ar")}


def test_an_llm_gets_whole_messages_and_is_told_what_to_do(lane: Provenance) -> None:
    text = "Keep {target} as it is."
    plan = plan_translation(pending_prompt(text=text), "t0", LLM)
    assert [len(request.messages) for request in plan.requests] == [2] * 4
    assert plan.requests[0].messages[0] == Message(role="system", content="You translate.")
    told = plan.requests[3].messages[1]["content"]
    assert "from English into Arabic" in told
    assert "alone" in told
    assert told.endswith(text)
    own = LLM.model_copy(update={"instruction": "To {target}!"})
    assert (
        plan_translation(pending_prompt(text=text), "t0", own).requests[3].messages[1]["content"]
        == f"To Arabic!\n\n{text}"
    )


def test_an_llm_reply_is_unwrapped_and_keeps_the_outer_space() -> None:
    plan = plan_translation(pending_completion(text="\n Hello to 5 of you. \n"), "tc0", LLM)
    assert assemble(plan, [Reply("tc0/0", text="Translation: مرحبا 5\n")]) == ("\n مرحبا 5 \n",)


@pytest.mark.parametrize("translation", [NLLB, LLM])
def test_rows_without_words_need_no_request(translation: Translation, lane: Provenance, run_stage: Any) -> None:
    translator = Translator(lane, translation, "completions", detect=None)
    landed = run_stage(translator, [pending_completion(text="```\nx = 1\n```\n42")], answer, "completions")
    assert landed.rows["text"].to_list() == ["```\nx = 1\n```\n42"]


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        (lambda text: text.replace("5", ""), "lost_content", "number '5'"),
        (lambda text: "", "empty", "no translation of"),
        (lambda text: f"{text} <unk>", "untranslated", "<unk>"),
        (lambda text: f"{text}\ud800", "invalid_reply", "U+D800"),
    ],
)
def test_a_bad_translation_is_rejected(
    change: Callable[[str], str], reason: str, said: str, lane: Provenance, run_stage: Any
) -> None:
    def reply(request: Request) -> Reply:
        return Reply(request.request_id, text=change(answer(request).text or ""))

    landed = run_stage(Translator(lane, NLLB, "prompts", detect=None), [pending_prompt()], reply, "prompts")
    row = landed.rejections.to_dicts()[0]
    assert landed.rows.is_empty()
    assert (row["row_id"], row["stage"], row["config_id"]) == ("t0", "translate_prompts", "")
    assert (row["reason"], row["language"], row["model"]) == (reason, "ar", lane.model)
    assert said in row["detail"]


def test_one_copied_sentence_makes_a_row_untranslated(lane: Provenance, run_stage: Any) -> None:
    def copy_last(request: Request) -> Reply:
        text = request.messages[-1]["content"]
        return Reply(request.request_id, text=text if text.startswith("nobody") else to_arabic(text))

    rows = [
        pending_completion(0, "This is one. nobody moved it at all"),
        pending_completion(1, "This is one! nobody moved it at all"),
    ]
    rows[0]["text"] = "This is one.\nnobody moved it at all"
    landed = run_stage(Translator(lane, NLLB, "completions", detect=None), rows[:1], copy_last, "completions")
    assert landed.rejections["reason"].to_list() == ["untranslated"]


@pytest.mark.parametrize(
    ("failures", "reason"),
    [
        ({1: Reason.TIMEOUT}, "timeout"),
        ({0: Reason.TIMEOUT, 2: Reason.POISON}, "poison"),
        ({2: Reason.PROMPT_TOO_LONG, 1: Reason.SERVER_ERROR}, "prompt_too_long"),
    ],
)
def test_a_failed_segment_fails_its_row_alone_and_a_final_reason_wins(
    failures: dict[int, Reason], reason: str, lane: Provenance, run_stage: Any
) -> None:
    def reply(request: Request) -> Reply:
        row, _, number = request.request_id.partition("/")
        if row == "tc0" and int(number) in failures:
            return Reply(request.request_id, failure=Failure(failures[int(number)], "out of order"))
        return answer(request)

    translator = Translator(lane, NLLB, "completions", detect=None)
    landed = run_stage(translator, [pending_completion(0), pending_completion(1)], reply, "completions")
    assert landed.rows["completion_id"].to_list() == ["tc1"]
    assert landed.rejections.select("row_id", "reason", "stage").rows() == [("tc0", reason, "translate_completions")]


def test_a_cut_off_translation_is_rejected(lane: Provenance, run_stage: Any) -> None:
    def cut(request: Request) -> Reply:
        return Reply(request.request_id, text="مرحبا", finish_reason="length")

    landed = run_stage(Translator(lane, LLM, "completions", detect=None), [pending_completion()], cut, "completions")
    assert landed.rejections["reason"].to_list() == ["truncated"]


@pytest.mark.parametrize(
    "reply",
    [
        "<think>The user wants Arabic.</think>\nمرحبا {text}",
        "The user wants Arabic.</think>\nمرحبا {text}",
        "<think>The user wants Arabic {text}",
        "[THINK]Hm[/THINK]{text}",
        "<|channel|>analysis<|message|>Hm {text}",
    ],
)
@pytest.mark.parametrize("table", ["prompts", "completions"])
def test_thinking_never_becomes_a_translation(reply: str, table: Any, lane: Provenance, run_stage: Any) -> None:
    def think(request: Request) -> Reply:
        text = request.messages[-1]["content"].rpartition("\n\n")[2]
        return Reply(request.request_id, text=reply.replace("{text}", to_arabic(text)), finish_reason="stop")

    pending = {"prompts": pending_prompt(text="What is dew?"), "completions": pending_completion(text="What is dew?")}
    landed = run_stage(Translator(lane, LLM, table, detect=None), [pending[table]], think, table)
    assert landed.rows.is_empty()
    assert landed.rejections["reason"].to_list() == ["stray_reasoning"]


ANALYST = LLM.model_copy(update={"reasoning": ("<analysis>", "</analysis>")})


@pytest.mark.parametrize(
    ("reply", "reason", "detail"),
    [
        ({"text": "مرحبا. <analysis>is this right?"}, "stray_reasoning", "thinks aloud: <analysis>"),
        ({"text": "مرحبا</analysis>"}, "stray_reasoning", "thinks aloud: </analysis>"),
        (
            {"text": "", "reasoning": "Hm", "finish_reason": "length"},
            "stray_reasoning",
            "the thinking was cut off or never closed",
        ),
        ({"text": "", "reasoning": "مرحبا"}, "empty", "all of it was reasoning; no answer follows"),
        ({"text": "", "finish_reason": "length"}, "truncated", "the translation of"),
        ({"text": " "}, "empty", "no translation of"),
    ],
)
@pytest.mark.parametrize("table", ["prompts", "completions"])
def test_a_translator_that_thinks_is_judged_by_its_own_tags(
    reply: Any, reason: str, detail: str, table: Any, lane: Provenance, run_stage: Any
) -> None:
    def think(request: Request) -> Reply:
        return Reply(request.request_id, **{"finish_reason": "stop"} | reply)

    pending = {"prompts": pending_prompt(text="What is dew?"), "completions": pending_completion(text="What is dew?")}
    landed = run_stage(Translator(lane, ANALYST, table, detect=None), [pending[table]], think, table)
    assert landed.rows.is_empty()
    assert landed.rejections["reason"].to_list() == [reason]
    assert landed.rejections["detail"][0].startswith(detail)


CODE = (
    "My table is broken:\nSELECT name, age\nFROM users\nWHERE age > 30;\nWhy does getUserName(7) read ~/app/users.json?"
)


def test_code_without_a_fence_is_not_sent_to_a_translator_by_sentences(lane: Provenance, run_stage: Any) -> None:
    landed = run_stage(
        Translator(lane, NLLB, "completions", detect=None), [pending_completion(text=CODE)], answer, "completions"
    )
    broken, why, read = map(to_arabic, ("My table is broken:", "Why does", "read"))
    assert landed.rows["text"].to_list() == [
        f"{broken}\nSELECT name, age\nFROM users\nWHERE age > 30;\n{why} getUserName(7) {read} ~/app/users.json?"
    ]


@pytest.mark.parametrize(
    ("code", "prose"),
    [("getUserName(7)", "getNutzerName(7)"), ("FROM users", "VON users"), ("~/app/users.json", "~/app/nutzer.json")],
)
def test_code_that_an_llm_translates_is_lost_content(code: str, prose: str, lane: Provenance, run_stage: Any) -> None:
    kept = ["SELECT name, age\nFROM users\nWHERE age > 30;", "getUserName(7)", "~/app/users.json"]
    whole = (
        f"{to_arabic('My table is broken')}:\n{kept[0]}\n{to_arabic('Why')} {kept[1]} {to_arabic('read')} {kept[2]}؟"
    )

    def reply(text: str) -> Any:
        return lambda request: Reply(request.request_id, text=text)

    translator = Translator(lane, LLM, "completions", detect=None)
    assert run_stage(translator, [pending_completion(text=CODE)], reply(whole), "completions").rows[
        "text"
    ].to_list() == [whole]
    landed = run_stage(translator, [pending_completion(text=CODE)], reply(whole.replace(code, prose)), "completions")
    assert landed.rejections["reason"].to_list() == ["lost_content"]
    assert f"code {code!r}" in landed.rejections["detail"][0]


def test_a_text_about_thinking_is_translated_with_its_marks(lane: Provenance) -> None:
    plan = plan_translation(pending_completion(text="What does <think> mean in `<think>`?"), "tc0", LLM)
    reply = Reply("tc0/0", text="ماذا تعني <think> في `<think>`؟")
    assert assemble(plan, [reply]) == ("ماذا تعني <think> في `<think>`؟",)


def test_pending_rows_are_taken_as_needed_and_left_when_finished(lane: Provenance) -> None:
    translator, taken = Translator(lane, NLLB, "completions", detect=None), list[int]()

    def frames() -> Any:
        for number in range(100):
            taken.append(number)
            yield pl.DataFrame([pending_completion(number)])

    waiting: list[Request] = []
    for request in translator.requests(frames()):
        waiting.append(request)
        if len(waiting) == 10:
            translator.add(answer(waiting.pop(0)))
        assert len(translator._in_flight) <= 5
        assert len(taken) * 3 >= len(waiting)
    assert sum(translator.add(answer(request)) for request in waiting) > 0
    assert len(translator.take().rows) == 100
    assert not translator._in_flight


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)


@settings(max_examples=80, deadline=None)
@given(st.lists(TEXTS, max_size=6), st.sampled_from([NLLB, LLM]), st.randoms(use_true_random=False))
def test_every_row_is_translated_or_rejected_in_whatever_order(texts: list[str], how: Translation, order: Any) -> None:
    translator = Translator(Provenance("s", "m", "f"), how, "completions", detect=None)
    requests = list(translator.requests([pl.DataFrame([pending_completion(n, t)]) for n, t in enumerate(texts)]))
    order.shuffle(requests)
    for request in requests:
        translator.add(Reply(request.request_id, text="تم"))
    landed = translator.take()
    ids = [*landed.rows["completion_id"], *landed.rejections["row_id"]]
    assert sorted(ids) == sorted(f"tc{number}" for number in range(len(texts)))


@pytest.mark.parametrize(
    ("source_language", "language", "text", "translation", "reason"),
    [
        ("en", "ar", "The weather is beautiful today.", "Altaqs jamil jiddan alyawm.", "wrong_script"),
        ("en", "ja", "The weather is beautiful today.", "Kyou wa tenki ga totemo ii desu.", "wrong_script"),
        ("zh", "zh-Hant", "今天天气很好，我们去公园。", "今天天气很好，我们去公园。", "untranslated"),
        ("zh", "zh-Hant", "今天天气很好，我们去公园。", "今天的天气非常好，我们去公园。", "wrong_script"),
        ("zh-Hant", "zh", "今天天氣很好，我們去公園。", "今天天气很好，我们去公园。", None),
        ("en", "hi", "The weather is beautiful today.", "आज मौसम बहुत अच्छा है।", None),
    ],
)
def test_a_translation_is_in_the_script_of_its_language(
    lane: Provenance,
    run_stage: Any,
    source_language: str,
    language: str,
    text: str,
    translation: str,
    reason: str | None,
) -> None:
    row = pending_completion(text=text) | {"source_language": source_language, "language": language}
    for translation_settings in (NLLB, LLM):
        landed = run_stage(
            Translator(lane, translation_settings, "completions", detect=None),
            [row],
            lambda request: Reply(request.request_id, text=translation),
            "completions",
        )
        assert landed.rejections["reason"].to_list() == ([] if reason is None else [reason])
