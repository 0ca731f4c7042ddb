"""What makes weights a model: configuration, tokenizer, chat template. Compared between the parents, and copied."""

import filecmp
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from factory.merging.checkpoints.parents import Checkpoint
from schemas.errors import InputError

COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
)

VOCABULARIES = frozenset(
    {"tokenizer.json", "tokenizer.model", "sentencepiece.bpe.model", "vocab.json", "added_tokens.json"}
)
"""Files that say which token has which number; a difference there cannot be merged."""


def compare_companions(parents: Sequence[Checkpoint], base: Checkpoint | None) -> list[str]:
    """Hold the files that come along against the first parent's; return a note for each that differs.

    A base counts for its vocabulary alone: a pretrained model has no chat template.

    Raises:
        InputError: a tokenizer has another vocabulary.
    """
    first, *others = parents
    notes = []
    for name in COPIED:
        for other in others if base is None else [*others, base]:
            ours, theirs = first.find_file(name), other.find_file(name)
            if ours is not None and theirs is not None and filecmp.cmp(ours, theirs, shallow=False):
                continue
            if name in VOCABULARIES and ours is not None and theirs is not None:
                _compare_vocabularies(ours, theirs)
            if (ours is not None or theirs is not None) and other is not base:
                notes.append(f"{name} of '{other.label}' differs; that of '{first.label}' comes along")
    return notes


def _compare_vocabularies(ours: Path, theirs: Path) -> None:
    if ours.suffix != ".json":
        raise InputError(f"the tokenizers '{ours}' and '{theirs}' differ; only models of one vocabulary can be merged")
    mine, other = _read_vocabulary(ours), _read_vocabulary(theirs)
    strange = [token for token in {**mine, **other} if mine.get(token) != other.get(token)]
    if strange:
        token = min(strange)
        raise InputError(
            f"{len(strange):,} tokens have other numbers in '{theirs}' than in '{ours}', "
            f"such as {token!r} ({other.get(token, 'none')} and {mine.get(token, 'none')}); "
            "only models of one vocabulary can be merged"
        )


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Return number by token, of a tokenizer.json, a vocab.json or an added_tokens.json."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        if path.name != "tokenizer.json":
            return dict(data)
        vocabulary = data["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: pairs of token and score, numbered by their order
            vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
        return dict(vocabulary) | {token["content"]: token["id"] for token in data.get("added_tokens") or ()}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"tokenizer '{path}' cannot be read") from error


def write_companions(first: Checkpoint, folder: Path, dtype: str | None) -> None:
    """Write a parent's configuration, with the result's dtype and tying, and copy the files that come along."""
    config: dict[str, Any] = dict(first.config)
    if dtype is not None:
        config["torch_dtype" if "torch_dtype" in config else "dtype"] = dtype
    if any("ForCausalLM" in name for name in config.get("architectures") or ()):
        config["tie_word_embeddings"] = first.is_tied
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    for name in COPIED:
        source = first.find_file(name)
        if source is not None:
            shutil.copyfile(source, folder / name)
    for source in first.folders[-1].glob("*.py"):
        shutil.copyfile(source, folder / source.name)
    for templates in first.folders[::-1]:
        if (templates / "additional_chat_templates").is_dir():
            shutil.copytree(
                templates / "additional_chat_templates", folder / "additional_chat_templates", dirs_exist_ok=True
            )
