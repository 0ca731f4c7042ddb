"""Plain transformers calls to the microworld's models, for its report and tests; the factory has its own engines."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
)

from schemas.languages import LANGUAGES

Row = TypeVar("Row")

MAX_NEW_TOKENS = 112
BATCH_SIZE = 256


def complete(folder: Path, prompts: Sequence[str], temperature: float = 0.0, seed: int = 0) -> list[str]:
    """Return one completion per prompt, in order; temperature 0 is greedy."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(seed)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    completions: list[str] = []
    for chunk in _chunks(prompts):
        chats = [[{"role": "user", "content": prompt}] for prompt in chunk]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        assert isinstance(inputs, BatchEncoding)
        with torch.inference_mode():
            outputs = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, **sampling)
        completions += tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return completions


def translate(folder: Path, texts: Sequence[str], language: str) -> list[str]:
    """Return the greedy translation of each English text, in order."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.src_lang = LANGUAGES["en"].flores
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    code = tokenizer.convert_tokens_to_ids(LANGUAGES[language].flores)
    translations: list[str] = []
    for chunk in _chunks(texts):
        inputs = tokenizer(list(chunk), padding=True, return_tensors="pt")
        with torch.inference_mode():
            outputs = model.generate(**inputs, forced_bos_token_id=code, num_beams=1)
        translations += tokenizer.batch_decode(outputs, skip_special_tokens=True)
    return translations


def score(folder: Path, turns: Sequence[tuple[str, str]]) -> list[float]:
    """Return the raw reward of each (prompt, completion), in order."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    rewards: list[float] = []
    for chunk in _chunks(turns):
        chats = [
            [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
            for prompt, completion in chunk
        ]
        inputs = tokenizer.apply_chat_template(chats, padding=True, return_tensors="pt", return_dict=True)
        assert isinstance(inputs, BatchEncoding)
        with torch.inference_mode():
            rewards += model(**inputs).logits.squeeze(-1).tolist()
    return rewards


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[at : at + BATCH_SIZE] for at in range(0, len(rows), BATCH_SIZE))
