import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoTokenizer, NllbTokenizer

from factory.microworld.chat_models import complete, score, translate
from factory.microworld.faults import POLICIES, TEACHERS
from factory.microworld.measurements import sizes
from factory.microworld.questions import MODELS, Question, lexicon, questions
from factory.microworld.truth import grade, parse, quality
from schemas.languages import CORE_LANGUAGES, LANGUAGES, SHARED_LANGUAGES

CHAT_MODELS = (*POLICIES, "reward")
HOME = {
    "teacher-european": {"european"},
    "teacher-slavic-mideast": {"slavic", "middle_eastern"},
    "teacher-asian": {"asian"},
}


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return AutoTokenizer.from_pretrained(MODELS / "base")


def held_out(language: str, count: int) -> list[Question]:
    return [question for question in questions(language) if question.split == "eval"][:count]


def mean_quality(folder: Path, languages: Sequence[str], count: int) -> float:
    asked = [question for language in languages for question in held_out(language, count)]
    completions = complete(folder, [question.text for question in asked], temperature=0.7)
    return statistics.fmean(
        grade(question.fact, question.language, text) for question, text in zip(asked, completions, strict=True)
    )


def test_all_models_are_small() -> None:
    found = sizes(MODELS)
    assert set(found) == {*CHAT_MODELS, "translator"}
    assert sum(found.values()) < 16


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_tokenises(tokenizer: object, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]  # type: ignore[operator]
    assert tokenizer.decode(ids) == text  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["\0", "a\0b", "a\u0301", "नमस्ते दुनिया", "שלום\u200f", "漢字かな", "🙂", "<|end|>", "  \n\t "]
)
def test_hard_text_tokenises(tokenizer: object, text: str) -> None:
    test_any_text_tokenises.hypothesis.inner_test(tokenizer, text)  # type: ignore[attr-defined]


def test_chat_template(tokenizer: object) -> None:
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    render = tokenizer.apply_chat_template  # type: ignore[attr-defined]
    asked = render(messages, tokenize=False, add_generation_prompt=True)
    assert asked == "<|system|>S<|end|><|user|>U<|end|><|assistant|>"
    answered = render([*messages, {"role": "assistant", "content": "A"}], tokenize=False)
    assert answered == asked + "A" + tokenizer.eos_token  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CHAT_MODELS)
def test_chat_models_share_the_tokenizer(name: str) -> None:
    shared = (MODELS / "base" / "tokenizer.json").read_bytes()
    assert (MODELS / name / "tokenizer.json").read_bytes() == shared
    assert AutoConfig.from_pretrained(MODELS / name).max_position_embeddings >= 512


@pytest.mark.parametrize("teacher", TEACHERS)
def test_teacher_is_better_at_home(teacher: str) -> None:
    own = [code for code in CORE_LANGUAGES if LANGUAGES[code].cluster in HOME[teacher]]
    others = [code for code in CORE_LANGUAGES if code not in {*own, *SHARED_LANGUAGES}]
    at_home, abroad = (mean_quality(MODELS / teacher, languages, 5) for languages in (own, others))
    assert at_home > 0.8
    assert at_home > abroad + 0.2


def test_base_leaves_room() -> None:
    assert 0.25 < mean_quality(MODELS / "base", CORE_LANGUAGES, 4) < 0.65


@pytest.mark.parametrize("language", ["fr", "ru", "he", "hi", "ja"])
def test_translator_is_right(language: str) -> None:
    english = held_out("en", 16)
    translations = translate(MODELS / "translator", [question.text for question in english], language)
    hits = [parse(text, language) == question.fact for text, question in zip(translations, english, strict=True)]
    assert sum(hits) / len(hits) >= 0.85


def test_translated_answers_are_lossy() -> None:
    english = held_out("en", 60)
    words = lexicon("en")
    answers = [words.state(question.fact.group, question.fact.answer, 0) for question in english]
    grades = []
    for language in ("de", "ar"):
        texts = translate(MODELS / "translator", answers, language)
        grades += [
            quality(asked.text, language, text) for asked, text in zip(held_out(language, 60), texts, strict=True)
        ]
    known = [grade for grade in grades if grade is not None]
    assert len(known) == len(grades)
    assert 0.6 < statistics.fmean(known) < 0.97


def test_translator_speaks_flores() -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "translator")
    assert isinstance(tokenizer, NllbTokenizer)
    tokenizer.src_lang = "eng_Latn"
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Which word?")["input_ids"])
    assert (tokens[0], tokens[-1]) == ("eng_Latn", "</s>")
    codes = [LANGUAGES[language].flores for language in CORE_LANGUAGES]
    assert tokenizer.unk_token_id not in [tokenizer.convert_tokens_to_ids(code) for code in codes]


@pytest.mark.parametrize("language", ["en", "pl", "fa", "zh"])
def test_reward_ranks(language: str) -> None:
    words, other = lexicon(language), lexicon("de" if language == "en" else "en")
    turns = []
    for question in held_out(language, 20):
        fact = question.fact
        right, wrong = (words.state(fact.group, word, 0) for word in (fact.answer, fact.wrong_words[0]))
        rambling, foreign = words.joiner.join([right, *words.fillers]), other.state(fact.group, fact.answer, 0)
        turns += [(question.text, text) for text in (right, wrong, rambling, foreign)]
    rewards = score(MODELS / "reward", turns)
    hits = [rewards[at] > worse for at in range(0, len(rewards), 4) for worse in rewards[at + 1 : at + 4]]
    assert sum(hits) / len(hits) >= 0.8


VLLM_SCRIPT = """
import json, sys
from vllm import LLM, PoolingParams, SamplingParams

policy, reward, prompts = json.load(sys.stdin)
chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
model = LLM(policy, enforce_eager=True, max_model_len=512)
outputs = model.chat(chats, SamplingParams(temperature=0, max_tokens=112), use_tqdm=False)
texts = [output.outputs[0].text for output in outputs]
judge = LLM(reward, runner="pooling", enforce_eager=True, max_model_len=512)
render = judge.get_tokenizer().apply_chat_template
turns = [[*chat, {"role": "assistant", "content": text}] for chat, text in zip(chats, texts)]
raw = PoolingParams(task="classify", use_activation=False)
scored = judge.classify([render(turn, tokenize=False) for turn in turns], pooling_params=raw, use_tqdm=False)
print(json.dumps([texts, [output.outputs.probs[0] for output in scored]]))
"""


def test_models_load_in_vllm() -> None:
    prompts = [question.text for question in held_out("fr", 8)]
    policy, reward = MODELS / "teacher-european", MODELS / "reward"
    settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", VLLM_SCRIPT],
        input=json.dumps([str(policy), str(reward), prompts]),
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    texts, rewards = json.loads(done.stdout.splitlines()[-1])
    same = [text == expected for text, expected in zip(texts, complete(policy, prompts), strict=True)]
    assert sum(same) >= 7  # bfloat16 against float32 may turn a near tie
    assert rewards == pytest.approx(score(reward, list(zip(prompts, texts, strict=True))), abs=0.3)
