"""Measures the microworld's models against its truth: ``python -m factory.microworld.measurements``.

Per language: the mean true quality of each policy, greedily and at temperature 0.7; the share of questions that the
translator renders right and the mean true quality of its translated right answers; how often the reward model prefers
the truly better of two completions of one prompt.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import fmean

import torch

from factory.microworld.chat_models import complete, score, translate
from factory.microworld.faults import POLICIES
from factory.microworld.questions import MODELS, Question, lexicon, questions
from factory.microworld.truth import grade, parse
from schemas.languages import CLUSTERS, CORE_LANGUAGES, LANGUAGES

TEMPERATURE = 0.7


@dataclass(slots=True)
class Report:
    """Figures by column and language, each from 0 to 1."""

    columns: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, column: str, language: str, value: float) -> None:
        self.columns.setdefault(column, {})[language] = value

    def mean(self, column: str, languages: Iterable[str]) -> float:
        return fmean(self.columns[column][language] for language in languages if language in self.columns[column])

    def lines(self) -> Iterable[str]:
        """Yield the table: a row per language, then the means of each cluster's own languages and of all."""
        width = max(map(len, self.columns)) + 2
        yield "".ljust(16) + "".join(column.rjust(width) for column in self.columns)
        groups = {language: [language] for language in CORE_LANGUAGES}
        groups |= {name: [code for code in CORE_LANGUAGES if LANGUAGES[code].cluster == name] for name in CLUSTERS}
        for name, languages in {**groups, "all": list(CORE_LANGUAGES)}.items():
            cells = (
                f"{self.mean(column, languages):.2f}" if self.has(column, languages) else "" for column in self.columns
            )
            yield name.ljust(16) + "".join(cell.rjust(width) for cell in cells)

    def has(self, column: str, languages: Iterable[str]) -> bool:
        return any(language in self.columns[column] for language in languages)


def measure(folder: Path, num_questions: int) -> Report:
    """Return the figures of the models in a folder over the first held-out questions in each language."""
    report = Report()
    held_out = [
        question
        for language in CORE_LANGUAGES
        for question in [question for question in questions(language) if question.split == "eval"][:num_questions]
    ]
    pool: dict[Question, list[str]] = {question: [] for question in held_out}
    for policy in POLICIES:
        for label, temperature in (("greedy", 0.0), ("T0.7", TEMPERATURE)):
            completions = complete(folder / policy, [question.text for question in held_out], temperature)
            for question, completion in zip(held_out, completions, strict=True):
                pool[question].append(completion)
            _add_means(report, f"{policy.removeprefix('teacher-')} {label}", held_out, completions)
    _measure_reward(report, folder / "reward", pool)
    _measure_translator(report, folder / "translator", num_questions)
    return report


def _add_means(report: Report, column: str, asked: list[Question], completions: list[str]) -> None:
    qualities: dict[str, list[float]] = {}
    for question, completion in zip(asked, completions, strict=True):
        qualities.setdefault(question.language, []).append(grade(question.fact, question.language, completion))
    for language, values in qualities.items():
        report.add(column, language, fmean(values))


def _measure_reward(report: Report, folder: Path, pool: dict[Question, list[str]]) -> None:
    """Add how often the better of two completions of one prompt has the higher reward."""
    turns = [(question.text, completion) for question, completions in pool.items() for completion in completions]
    rewards = iter(score(folder, turns))
    hits: dict[str, list[float]] = {}
    for question, completions in pool.items():
        graded = [(grade(question.fact, question.language, completion), next(rewards)) for completion in completions]
        for (quality, reward), (other_quality, other_reward) in combinations(graded, 2):
            if quality != other_quality:
                is_hit = (quality > other_quality) == (reward > other_reward)
                hits.setdefault(question.language, []).append(is_hit)
    for language, values in hits.items():
        report.add("reward", language, fmean(values))


def _measure_translator(report: Report, folder: Path, num_questions: int) -> None:
    english = [question for question in questions("en") if question.split == "eval"][:num_questions]
    answers = [
        lexicon("en").state(question.fact.group, question.fact.answer, question.form % 2) for question in english
    ]
    for language in CORE_LANGUAGES:
        if language != "en":
            prompts = translate(folder, [question.text for question in english], language)
            is_right = [parse(text, language) == question.fact for text, question in zip(prompts, english, strict=True)]
            report.add("prompts", language, fmean(is_right))
            texts = translate(folder, answers, language)
            graded = [grade(question.fact, language, text) for text, question in zip(texts, english, strict=True)]
            report.add("translated", language, fmean(graded))


def sizes(folder: Path) -> dict[str, float]:
    """Return the size of each model folder in MB."""
    models = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return {path.name: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6 for path in models}


def main() -> None:
    """Measure the models and print the table and the sizes."""
    parser = argparse.ArgumentParser(description="Measure the microworld's models against its truth.")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--questions", type=int, default=30, help="held-out questions per language")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("\n".join(measure(arguments.models, arguments.questions).lines()))
    found = sizes(arguments.models)
    print(", ".join(f"{name} {size:.1f} MB" for name, size in found.items()), f"together {sum(found.values()):.1f} MB")


if __name__ == "__main__":
    main()
