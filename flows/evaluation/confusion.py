"""The confusion command: how often recorded responses are in a language that nobody asked for."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from rich.console import Console

from factory.evaluation.confusion import MIN_WORDS, average_confusion, check_responses, rate_confusion, read_words
from factory.evaluation.responses import read_responses
from factory.texts.langid import LanguageDetector
from flows.terminal import make_table
from schemas.errors import InputError


def measure_confusion(
    path: str, *, text: str, language: str, groups: Sequence[str], words: Path | None, output: Path | None
) -> pl.DataFrame:
    """Print LPR and WPR of the responses in a file by language, and write them as JSON where asked; return the rates.

    Raises:
        InputError: a file cannot be read, or holds no words or no responses that are long enough to judge.
    """
    rejected: Counter[str] = Counter()
    english = None if words is None else read_words(words)
    responses = read_responses(path, text=text, language=language, groups=groups, rejected=rejected)
    rates = rate_confusion(pl.concat(check_responses(responses, LanguageDetector(), english)))
    if rates["num_responses"].sum() == rates["num_skipped"].sum():
        raise InputError(
            f"{path}: no response in '{text}' has a line of {MIN_WORDS} words, which it takes to judge one"
        )
    averages = average_confusion(rates)
    rates, averages = (frame.with_columns(pl.col("group").list.join("/")) for frame in (rates, averages))
    console = Console()
    for (name,), table in pl.concat([rates, averages.select(rates.columns)]).group_by("group", maintain_order=True):
        console.print(make_table(table.drop("group"), f"language confusion {name}".rstrip()))
    if rejected:
        console.print("rows left out: " + ", ".join(f"{count:,} {reason}" for reason, count in rejected.items()))
    if output is not None:
        result = {"file": path, "rejected": rejected, "languages": rates.to_dicts(), "average": averages.to_dicts()}
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return rates
