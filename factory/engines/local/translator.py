"""The encoder-decoder translator: NLLB- and M2M100-class models under transformers, run in a child process.

Requests wait until ``step`` batches them. Texts of similar length are batched regardless of their languages, because
the target language is given by each row's own decoder prefix.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedTokenizerBase

from factory.engines.base import Failure, Reply, Request
from factory.engines.model_folders import check_translator
from factory.engines.reply_text import mend_text
from schemas.errors import EngineError
from schemas.languages import LANGUAGES
from schemas.reasons import Reason
from schemas.recipe.models import Translation

UNKNOWN = "\ufffd"
"""Replaces each ``<unk>`` that the model generates, so that a stage can reject the translation for lost content."""

NUM_PREFIX_TOKENS = 2
"""The length of the decoder's prefix: its start token and the target language."""


@dataclass(frozen=True, slots=True)
class _Job:
    request_id: str
    source_ids: list[int]
    target_id: int
    max_new_tokens: int


class TranslatorCore:
    """Translates the last message of each request; a core for the child process.

    A translation is cut off (finish reason "length") after ``sampling.max_tokens`` tokens, or after 4 tokens per source
    token plus 64 if that is less: such a long translation repeats itself, and the whole batch would wait for it.
    """

    def __init__(self, model: Translation) -> None:
        """Load tokenizer and weights, on the GPU if one is visible; dtype "auto" is that of the checkpoint.

        Raises:
            EngineError: the model cannot be loaded, or has no language tokens of NLLB or M2M100.
        """
        check_translator(model)
        options = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model.model, **options)
            weights = AutoModelForSeq2SeqLM.from_pretrained(model.model, dtype=model.dtype, **options)
        except (OSError, ValueError) as error:
            raise EngineError(f"the translator '{model.model}' cannot be loaded: {_first_line(error)}") from error
        self._model = weights.to(self._device).eval()
        self._model.generation_config.max_length = None  # it is 200 in NLLB's config; limits are set per batch
        self._languages = _language_names(self._tokenizer)
        if not self._languages:
            raise EngineError(
                f"the translator '{model.model}' has no language tokens such as 'fra_Latn' or '__fr__'; "
                "the transformers engine runs NLLB- and M2M100-class models"
            )
        added = self._tokenizer.added_tokens_decoder
        self._control = {*self._tokenizer.all_special_ids, *(number for number in added if added[number].special)}
        self._control |= {self._language_id(name) for name in self._languages.values()}
        self._control -= {self._tokenizer.unk_token_id}
        self._options = _generation_options(model)
        self._max_tokens = model.sampling.max_tokens
        self._max_positions = min(
            getattr(weights.config, "max_position_embeddings", None) or self._tokenizer.model_max_length,
            self._tokenizer.model_max_length,
            model.run.max_model_len or self._tokenizer.model_max_length,
        )
        self._batch_tokens = model.run.batch_tokens
        self._pending: dict[str, _Job] = {}
        self._refused: list[Reply] = []
        if model.sampling.seed is not None:
            torch.manual_seed(model.sampling.seed)

    def submit(self, request: Request) -> None:
        """Accept a request; ``step`` will answer it."""
        job = self._encode(request)
        if isinstance(job, Failure):
            self._refused.append(Reply(request.request_id, failure=job))
        else:
            self._pending[job.request_id] = job

    def step(self) -> list[Reply]:
        """Translate one batch of submitted requests; return its replies, and those to requests that were refused."""
        replies, self._refused = self._refused, []
        if self._pending:
            batch = self._choose_batch()
            try:
                replies += self._translate(batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                self._batch_tokens = max(1, self._count_tokens(*batch) // 2)
                torch.cuda.empty_cache()
            else:
                for job in batch:
                    del self._pending[job.request_id]
        return replies

    def close(self) -> None:
        """Drop pending requests; memory is freed when the process ends."""
        self._pending.clear()

    def _encode(self, request: Request) -> _Job | Failure:
        unknown = [code for code in (request.source_language, request.target_language) if code not in self._languages]
        if unknown:
            known = ", ".join(self._languages)
            return Failure(Reason.REFUSED_BY_ENGINE, f"the translator has no language {unknown[0]!r}; it has {known}")
        self._tokenizer.src_lang = self._languages[str(request.source_language)]
        text = mend_text(request.messages[-1]["content"])
        if not text.strip():
            return Failure(Reason.EMPTY_PROMPT, "the text to translate is empty")
        # Text that spells a special token must not act as one.
        source_ids = self._tokenizer(text, split_special_tokens=True, verbose=False)["input_ids"]
        if sum(map(self._control.__contains__, source_ids)) > self._tokenizer.num_special_tokens_to_add():
            return Failure(Reason.INVALID_TEXT, "the text is encoded as control tokens of the translator")
        if len(source_ids) > self._max_positions:
            detail = f"the text has {len(source_ids)} tokens; the translator takes {self._max_positions}"
            return Failure(Reason.PROMPT_TOO_LONG, detail)
        return _Job(
            request.request_id,
            source_ids,
            self._language_id(self._languages[str(request.target_language)]),
            min(self._max_tokens, 4 * len(source_ids) + 64, self._max_positions - NUM_PREFIX_TOKENS),
        )

    def _language_id(self, name: str) -> int:
        token = name if "_" in name else f"__{name}__"
        number = self._tokenizer.convert_tokens_to_ids(token)
        assert isinstance(number, int)
        return number

    def _choose_batch(self) -> list[_Job]:
        """Return the oldest request and those of the most similar length, up to ``batch_tokens`` padded tokens."""
        oldest = next(iter(self._pending.values()))
        batch: list[_Job] = []
        for job in sorted(self._pending.values(), key=lambda job: abs(len(job.source_ids) - len(oldest.source_ids))):
            if batch and self._count_tokens(job, *batch) > self._batch_tokens:
                break
            batch.append(job)
        return batch

    def _count_tokens(self, *batch: _Job) -> int:
        return len(batch) * max(len(job.source_ids) for job in batch) * int(self._options["num_beams"])

    def _translate(self, batch: list[_Job]) -> list[Reply]:
        width = max(len(job.source_ids) for job in batch)
        pad, start = self._tokenizer.pad_token_id, self._model.generation_config.decoder_start_token_id
        source = torch.tensor([job.source_ids + [pad] * (width - len(job.source_ids)) for job in batch])
        lengths = torch.tensor([len(job.source_ids) for job in batch])
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=source.to(self._device),
                attention_mask=(torch.arange(width) < lengths[:, None]).long().to(self._device),
                decoder_input_ids=torch.tensor([[start, job.target_id] for job in batch]).to(self._device),
                max_new_tokens=max(job.max_new_tokens for job in batch),
                **self._options,
            )
        rows = output[:, NUM_PREFIX_TOKENS:].tolist()
        return [self._make_reply(job, row[: job.max_new_tokens]) for job, row in zip(batch, rows, strict=True)]

    def _make_reply(self, job: _Job, ids: list[int]) -> Reply:
        eos = self._tokenizer.eos_token_id
        finished = eos in ids
        ids = ids[: ids.index(eos) + 1] if finished else ids
        return Reply(
            job.request_id,
            text=self._decode(ids),
            finish_reason="stop" if finished else "length",
            num_prompt_tokens=len(job.source_ids),
            num_completion_tokens=len(ids),
        )

    def _decode(self, ids: list[int]) -> str:
        unknown = self._tokenizer.unk_token_id
        special = set(self._tokenizer.all_special_ids) - {unknown}
        text = self._tokenizer.decode([i for i in ids if i not in special], clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return (text.replace(self._tokenizer.unk_token, UNKNOWN) if unknown in ids else text).strip()


def open_core(settings: dict[str, object]) -> TranslatorCore:
    """Return the core for a translation section of a recipe, given as JSON-able data."""
    return TranslatorCore(Translation.model_validate(settings))


def _language_names(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Return the tokenizer's name of each language that it knows: FLORES codes (NLLB) or plain ones (M2M100)."""
    names = {}
    for language in LANGUAGES.values():
        for name, token in ((language.flores, language.flores), (language.code, f"__{language.code}__")):
            if tokenizer.convert_tokens_to_ids(token) not in {None, tokenizer.unk_token_id}:
                names[language.code] = name
    return names


def _generation_options(model: Translation) -> dict[str, Any]:
    sampling = model.sampling
    options: dict[str, Any] = {"num_beams": 1, "repetition_penalty": sampling.repetition_penalty, "do_sample": False}
    if sampling.temperature > 0:
        options |= {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
        options |= {"top_k": sampling.top_k or 0, "min_p": sampling.min_p or None}
    return options | model.engine_args


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
