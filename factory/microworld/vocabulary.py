"""The microworld's two tokenizers: a byte-level one for the chat models, one of NLLB's kind for the translator."""

import json
import string
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import NllbTokenizer, PreTrainedTokenizerFast

from schemas.languages import CORE_LANGUAGES, LANGUAGES

VOCABULARY = 3584
MAX_LENGTH = 1024

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("system", "user", "assistant")

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{ raise_exception('roles are system, user and assistant, got ' ~ message['role']) }}"
    "{%- endif -%}"
    "{{- '<|' ~ message['role'] ~ '|>' ~ message['content'] ~ '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

_PIECES = Regex(r" ?[\p{L}\p{M}]+|\p{N}|(?:[^\s\p{L}\p{M}\p{N}]| (?![\p{L}\p{M}]))+|\s")
"""Words with their combining marks, single digits, runs of punctuation (what stands between two quoted words is one
run), white space. A word takes a space along."""

_SPACED_PIECES = Regex(r"▁?[\p{L}\p{M}]+|\p{N}|▁?[^▁\p{L}\p{M}\p{N}]+|▁")
"""The same for the translator, whose spaces are marks."""


def train_chat_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that tokenises any text and gives it back unchanged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, *(f"<|{role}|>" for role in ROLES)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def train_translator_tokenizer(texts: Iterable[str]) -> NllbTokenizer:
    """Return a tokenizer of NLLB's class: language code, pieces, end; unknown characters become ``<unk>``."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always", split=True),
            pre_tokenizers.Split(_SPACED_PIECES, "isolated"),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=list(string.printable.strip()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary, merges = tokenizer.get_vocab(), _merges(tokenizer)
    codes = [LANGUAGES[language].flores for language in CORE_LANGUAGES]
    return NllbTokenizer(
        vocab=vocabulary,
        merges=merges,  # type: ignore[arg-type] # pairs, as its BPE wants them
        extra_special_tokens=codes,
        src_lang="eng_Latn",
        model_max_length=MAX_LENGTH,
    )


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]
