"""The confusion command: how often recorded responses are in a language that nobody asked for."""

import json
from collections import Counter
from pathlib import Path

import polars as pl
from rich.console import Console

from factory.engines.langid import LanguageDetector
from factory.evaluation.confusion import average_confusion, check_responses, rate_confusion
from factory.evaluation.responses import read_responses
from flows.report import make_table


def measure_confusion(path: str, *, text: str, language: str, group: str | None, output: Path | None) -> pl.DataFrame:
    """Print LPR and WPR of the responses in a file by language, and write them as JSON where asked; return the rates.

    Raises:
        InputError: the file cannot be read, or holds no responses.
    """
    rejected: Counter[str] = Counter()
    responses = read_responses(path, text=text, language=language, group=group, rejected=rejected)
    rates = rate_confusion(pl.concat(check_responses(responses, LanguageDetector().detect)))
    averages = average_confusion(rates)
    console = Console()
    for name in averages["group"]:
        table = rates.filter(pl.col("group") == name).drop("group")
        console.print(make_table(table, f"language confusion {name}".rstrip()))
    console.print(make_table(averages if group else averages.drop("group"), "average over languages"))
    if rejected:
        console.print("rows left out: " + ", ".join(f"{count:,} {reason}" for reason, count in rejected.items()))
    if output is not None:
        result = {"file": path, "rejected": rejected, "languages": rates.to_dicts(), "average": averages.to_dicts()}
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return rates
