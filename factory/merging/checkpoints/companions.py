"""The files of a model besides its weights (config, tokenizer, chat template): compared between parents, and copied."""

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
"""Files that map tokens to ids; models that differ in these cannot be merged."""


def compare_companions(parents: Sequence[Checkpoint], base: Checkpoint | None) -> list[str]:
    """Compare the parents' files with those of the first parent; return a note for each difference.

    Of a base only the vocabulary is compared, because a pretrained model may have no chat template.

    Raises:
        InputError: the vocabularies of tokenizers differ.
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
                notes.append(f"{name} of '{other.label}' differs; that of '{first.label}' is copied")
    return notes


def _compare_vocabularies(ours: Path, theirs: Path) -> None:
    if ours.suffix != ".json":
        raise InputError(f"the tokenizers '{ours}' and '{theirs}' differ; only models of one vocabulary can be merged")
    mine, other = _read_vocabulary(ours), _read_vocabulary(theirs)
    strange = [token for token in {**mine, **other} if mine.get(token) != other.get(token)]
    if strange:
        token = min(strange)
        raise InputError(
            f"{len(strange):,} tokens have different ids in '{theirs}' and '{ours}', "
            f"such as {token!r} ({other.get(token, 'none')} and {mine.get(token, 'none')}); "
            "only models of one vocabulary can be merged"
        )


def _read_vocabulary(path: Path) -> dict[str, int]:
    """Return ids by token from a tokenizer.json, a vocab.json or an added_tokens.json."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        if path.name != "tokenizer.json":
            return dict(data)
        vocabulary = data["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: [token, score] pairs, whose positions are the ids
            vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
        return dict(vocabulary) | {token["content"]: token["id"] for token in data.get("added_tokens") or ()}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"tokenizer '{path}' cannot be read") from error


def write_companions(first: Checkpoint, folder: Path, dtype: str | None) -> None:
    """Write a parent's config, with the dtype and weight tying of the result, and copy its other files."""
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
