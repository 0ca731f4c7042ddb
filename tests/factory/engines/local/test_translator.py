import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    M2M100Config,
    M2M100ForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers.models.m2m_100.tokenization_m2m_100 import M2M100Tokenizer
from transformers.models.nllb.tokenization_nllb import NllbTokenizer

from factory.engines.base import Message, Reply, Request
from factory.engines.local.translator import UNKNOWN, TranslatorCore, open_core
from factory.engines.open import open_engine
from schemas.errors import EngineError
from schemas.languages import LANGUAGES
from schemas.reasons import Reason
from schemas.recipe.models import Sampling, Translation

TEXTS = [
    "The weather is nice today.",
    "Il fait beau aujourd'hui, n'est-ce pas ?",
    "今天天气很好，我们去花园吧。",
    "今日は天気がいいですね。",
    "الطقس جميل اليوم، أليس كذلك؟",
    "מזג האוויר יפה היום.",
    "आज मौसम बहुत अच्छा है।",
    "Cafe\u0301 cre\u0300me",
    "a",
    "The weather is nice today, and tomorrow, and the day after, and so on for ever and ever, as far as we know.",
]


def _save_model(folder: Path, tokenizer: Any, *, num_words: int, size: int, end: str, unknown: str) -> Path:
    """Save a random model that ends where it would say ``end`` and knows no word where it would say ``unknown``."""
    torch.manual_seed(3)
    config = M2M100Config(
        vocab_size=size,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=256,
        init_std=0.6,
        scale_embedding=False,
        tie_word_embeddings=False,
    )
    model = M2M100ForConditionalGeneration(config)
    with torch.no_grad():
        logits = model.lm_head.weight
        logits[:2] = 0
        logits[num_words:] = 0
        logits[2] = 1.1 * logits[tokenizer.convert_tokens_to_ids(end)]
        logits[3] = 1.1 * logits[tokenizer.convert_tokens_to_ids(unknown)]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False)
    trained.train_from_iterator(TEXTS * 3, trainer)
    vocabulary = json.loads(trained.to_str())["model"]
    tokenizer = NllbTokenizer(vocab=vocabulary["vocab"], merges=[tuple(pair) for pair in vocabulary["merges"]])
    words = {"num_words": len(vocabulary["vocab"]), "size": len(tokenizer)}
    return _save_model(tmp_path_factory.mktemp("nllb"), tokenizer, **words, end="▁today,", unknown="ै")


@pytest.fixture(scope="module")
def m2m100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("m2m100")
    with (folder / "spm.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS * 20),
            model_writer=file,
            vocab_size=150,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    words = ["<s>", "<pad>", "</s>", "<unk>"]
    words += [piece for piece in map(pieces.id_to_piece, range(len(pieces))) if piece not in words]
    (folder / "words.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    tokenizer = M2M100Tokenizer(str(folder / "words.json"), str(folder / "spm.model"))
    return _save_model(folder / "model", tokenizer, num_words=len(words), size=len(words) + 110, end="v", unknown="h")


def open_translator(
    folder: Path, *, run: dict[str, Any] | None = None, engine_args: dict[str, Any] | None = None, **sampling: Any
) -> TranslatorCore:
    sampling = {"temperature": 0.0, "max_tokens": 24, **sampling}
    settings = {"engine": "transformers", "model": str(folder), "sampling": sampling, "run": run or {}}
    return open_core(settings | {"engine_args": engine_args or {}})


def make_request(text: str, target: str, *, source: str = "en", request_id: str | None = None) -> Request:
    return Request(request_id or f"{target}: {text}", (Message(role="user", content=text),), source, target)


def answer(core: TranslatorCore, requests: list[Request]) -> dict[str, Reply]:
    for request in requests:
        core.submit(request)
    replies: list[Reply] = []
    while len(replies) < len(requests):
        finished = core.step()
        assert finished, "a step with pending requests answers some"
        replies += finished
    assert sorted(reply.request_id for reply in replies) == sorted(request.request_id for request in requests)
    return {reply.request_id: reply for reply in replies}


def generate_alone(folder: Path, texts: list[str], target: str, *, source: str = "en", **options: Any) -> list[Reply]:
    """Return what transformers makes of one text after the other, told the target language in its own way."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
    is_nllb = isinstance(tokenizer, NllbTokenizer)
    tokenizer.src_lang = LANGUAGES[source].flores if is_nllb else source
    language = tokenizer.convert_tokens_to_ids(LANGUAGES[target].flores if is_nllb else f"__{target}__")
    replies = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        # The language token counts as a new one here.
        ids = model.generate(**inputs, forced_bos_token_id=language, max_new_tokens=25, **options)[0][2:].tolist()
        translated = tokenizer.decode(ids, skip_special_tokens=False).replace("</s>", "").replace("<unk>", UNKNOWN)
        replies.append(
            Reply(
                f"{target}: {text}",
                text=translated.strip(),
                finish_reason="stop" if ids[-1] == tokenizer.eos_token_id else "length",
                num_prompt_tokens=inputs["input_ids"].shape[1],
                num_completion_tokens=len(ids),
            )
        )
    return replies


@pytest.mark.parametrize("family", ["nllb", "m2m100"])
def test_a_mixed_batch_translates_as_single_texts_do(family, request):
    folder = request.getfixturevalue(family)
    sources = {"fr": "en", "ar": "ru", "he": "en", "ja": "ko", "zh": "vi", "hi": "el"}
    requests = [make_request(text, target, source=sources[target]) for text in TEXTS for target in sources]
    replies = answer(open_translator(folder), requests)
    expected = {
        reply.request_id: reply
        for target, source in sources.items()
        for reply in generate_alone(folder, TEXTS, target, source=source, num_beams=1)
    }
    assert replies == expected
    assert {reply.finish_reason for reply in replies.values()} == {"stop", "length"}
    assert len({reply.text for reply in replies.values()}) > len(requests) / 2, "the target language tells"


def test_every_core_language_is_a_target_and_a_source(nllb):
    core = open_translator(nllb, max_tokens=4)
    requests = [make_request("a", code) for code in LANGUAGES]
    requests += [make_request("a", "en", source=code, request_id=code) for code in LANGUAGES]
    assert all(reply.failure is None for reply in answer(core, requests).values())


def test_beams_search_as_for_single_texts(nllb):
    options: dict[str, Any] = {"num_beams": 3, "length_penalty": 0.0}
    replies = answer(open_translator(nllb, engine_args=options), [make_request(text, "de") for text in TEXTS])
    assert list(replies.values()) != list(
        answer(open_translator(nllb), [make_request(t, "de") for t in TEXTS]).values()
    )
    assert {r.request_id: r.text for r in replies.values()} == {
        r.request_id: r.text for r in generate_alone(nllb, TEXTS, "de", **options)
    }


def test_unknown_words_stay_visible(nllb):
    replies = answer(open_translator(nllb), [make_request(text, "ja") for text in TEXTS])
    texts = [str(reply.text) for reply in replies.values()]
    assert any(UNKNOWN in text for text in texts)
    assert not any("<unk>" in text or "</s>" in text for text in texts)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_batches_keep_to_their_tokens_and_let_nobody_wait_for_ever(nllb, num_beams):
    core = open_translator(nllb, run={"batch_tokens": 40}, engine_args={"num_beams": num_beams})
    waiting = [make_request(text, "cs") for text in [TEXTS[-1], *TEXTS[:-1] * 2]]
    waiting = [Request(f"{number}", *_fields(request)) for number, request in enumerate(waiting)]
    for request in waiting:
        core.submit(request)
    sizes = []
    while waiting:
        replies = core.step()
        assert waiting[0].request_id in {reply.request_id for reply in replies}
        assert len(replies) == 1 or (len(replies) * max(reply.num_prompt_tokens for reply in replies) * num_beams <= 40)
        done = {reply.request_id for reply in replies}
        waiting = [request for request in waiting if request.request_id not in done]
        sizes.append(len(replies))
    assert max(sizes) > 2
    assert core.step() == []


def _fields(request: Request) -> tuple[Any, ...]:
    return request.messages, request.source_language, request.target_language


def test_too_long_a_text_fails_alone(nllb):
    requests = [make_request(text, "ru", request_id=text) for text in TEXTS]
    replies = answer(open_translator(nllb, run={"max_model_len": 8}), requests)
    failures = {text: reply.failure for text, reply in replies.items() if reply.failure is not None}
    assert set(failures) == {TEXTS[1], TEXTS[-1]}
    assert {failure.reason for failure in failures.values()} == {Reason.PROMPT_TOO_LONG}
    assert failures[TEXTS[1]].detail == "the text has 9 tokens; the translator takes 8"
    translated = open_translator(nllb, run={"max_model_len": 9})
    assert answer(translated, requests)[TEXTS[1]].failure is None


@pytest.mark.parametrize("text", ["", " \n\u3000"])
def test_nothing_is_not_translated(nllb, text):
    reply = answer(open_translator(nllb), [make_request(text, "fr", request_id="none")])["none"]
    assert reply.failure.reason is Reason.EMPTY_PROMPT


def test_languages_that_the_model_lacks_are_refused_one_by_one(m2m100):
    requests = [
        make_request("a", "zh-Hant"),
        make_request("a", "fr", source="zh-Hant", request_id="source"),
        Request("none", (Message(role="user", content="a"),)),
        make_request("a", "fr"),
    ]
    replies = answer(open_translator(m2m100), requests)
    assert replies["fr: a"].failure is None
    refused = [replies[request_id].failure for request_id in ("zh-Hant: a", "source", "none")]
    assert {failure.reason for failure in refused} == {Reason.REFUSED_BY_ENGINE}
    assert all("'zh-Hant'" in failure.detail for failure in refused[:2])


@pytest.mark.parametrize("limit", [1000, 7])
def test_a_runaway_translation_is_cut_off(nllb, limit):
    replies = answer(open_translator(nllb, max_tokens=limit), [make_request(text, "fr") for text in TEXTS])
    for reply in replies.values():
        allowed = min(limit, 4 * reply.num_prompt_tokens + 64)
        assert reply.num_completion_tokens <= allowed
        assert reply.finish_reason == "stop" or reply.num_completion_tokens == allowed
    assert {reply.finish_reason for reply in replies.values()} == {"stop", "length"}


@pytest.mark.parametrize("text", ["ends </s> here", "speaks <pad><s>", "lone \ud83e surrogate", "a \0 nul", "🦁"])
def test_odd_texts_are_translated(nllb, text):
    assert answer(open_translator(nllb), [make_request(text, "fr", request_id="odd")])["odd"].failure is None


@pytest.mark.parametrize("name", ["nllb", "m2m100"])
def test_the_spelling_of_a_control_token_is_plain_text(name, request):
    core = open_translator(request.getfixturevalue(name))
    tokenizer = core._tokenizer
    languages = tokenizer.convert_tokens_to_ids(["fra_Latn", "__fr__", "eng_Latn", "__en__"])
    control = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder, *languages} - {tokenizer.unk_token_id}

    def pick(text: str) -> list[int]:
        return [number for number in core._encode(make_request(text, "fr")).source_ids if number in control]

    frame = pick("today")
    assert len(frame) == 2
    for token in ("fra_Latn", "__fr__", "</s>", "<s>", "<pad>", "<unk>", "<mask>", "\uff1c/s\uff1e", "fra_Latn</s>"):
        for text in (token, f"today {token} today"):
            assert pick(text) == frame, text


def test_a_text_that_the_tokenizer_makes_control_tokens_of_is_refused(nllb):
    """No class of tokenizer is trusted to read a spelling as text: what comes out is counted."""
    core = open_translator(nllb)
    core._control = core._control | set(core._tokenizer("today", add_special_tokens=False)["input_ids"])
    failure = answer(core, [make_request("today", "fr", request_id="x")])["x"].failure
    assert failure is not None
    assert (failure.reason, failure.detail) == (
        "invalid_text",
        "the text is encoded as control tokens of the translator",
    )


def test_sampling_draws_and_a_seed_repeats_the_draw(nllb):
    requests = [make_request(text, "fr") for text in TEXTS]
    greedy = answer(open_translator(nllb), requests)
    first, second = (answer(open_translator(nllb, temperature=1.0, seed=5), requests) for _ in range(2))
    assert first == second
    assert first != greedy


def test_a_batch_too_large_for_the_memory_is_made_smaller(nllb, monkeypatch):
    core = open_translator(nllb)
    generate = core._model.generate

    def run_out_of_memory(*, input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        if len(input_ids) > 3:
            raise torch.OutOfMemoryError("no memory")
        return generate(input_ids=input_ids, **options)

    monkeypatch.setattr(core._model, "generate", run_out_of_memory)
    requests = [make_request(text, "it") for text in TEXTS]
    for request in requests:
        core.submit(request)
    replies: list[Reply] = []
    for _ in range(3 * len(requests)):
        replies += core.step()
    assert {reply.request_id: reply for reply in replies} == answer(open_translator(nllb), requests)
    assert len(replies) == len(requests)


def test_a_model_that_cannot_translate_is_named(tmp_path, nllb):
    with pytest.raises(EngineError, match=r"the translator '.*nowhere' cannot be loaded"):
        open_translator(tmp_path / "nowhere")
    with pytest.raises(EngineError, match="does not support 'adapter'"):
        open_core({"engine": "transformers", "model": str(nllb), "adapter": str(tmp_path)})
    words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "<pad>": 2}, unk_token="<unk>"))
    AutoModelForSeq2SeqLM.from_pretrained(nllb).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(tmp_path)
    with pytest.raises(EngineError, match="no language tokens such as 'fra_Latn'"):
        open_translator(tmp_path)


def test_the_core_runs_in_a_child_process(nllb):
    sampling = Sampling(temperature=0.0, max_tokens=24)
    model = Translation(engine="transformers", model=str(nllb), sampling=sampling)
    requests = [make_request(text, "fr") for text in TEXTS]
    with open_engine(model, "translate") as engine:
        replies = {reply.request_id: reply for reply in engine.stream(requests)}
    assert replies == answer(open_translator(nllb), requests)
