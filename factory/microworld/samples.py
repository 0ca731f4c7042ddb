"""Writes the microworld's shipped files: ``python -m factory.microworld.samples``. Neither holds any truth."""

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from factory.microworld.faults import MEDIUM, draw_fault, write_answer
from factory.microworld.questions import PROMPTS, RECORDED, questions

RECORDED_LANGUAGES = ("ar", "en", "fr", "hi", "ja", "ru", "tr", "zh")
RECORDED_QUESTIONS = 6
RECORDED_MODELS = ("recorded-a", "recorded-b", "recorded-c")


def prompt_rows() -> Iterator[Mapping[str, object]]:
    """Yield the English source prompts: id, split (train or eval), language, prompt."""
    for question in questions("en"):
        yield {"id": question.id, "split": question.split, "language": "en", "prompt": question.text}


def recorded_rows() -> Iterator[Mapping[str, object]]:
    """Yield recorded completions of a few questions, one per model: uid, prompt {id, text, language}, answer {text}, model.

    All are drawn from one mixture of faults.
    """
    rng = random.Random("microworld recorded")
    for language in RECORDED_LANGUAGES:
        for question in questions(language)[:RECORDED_QUESTIONS]:
            for model in RECORDED_MODELS:
                answer = write_answer(rng, language, question.fact, draw_fault(rng, MEDIUM))
                yield {
                    "uid": f"{model}-{question.id}-{language}",
                    "prompt": {"id": question.id, "text": question.text, "language": language},
                    "answer": {"text": answer},
                    "model": model,
                }


def write_lines(rows: Iterable[Mapping[str, object]], path: Path) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Write both files where they are shipped."""
    write_lines(prompt_rows(), PROMPTS)
    write_lines(recorded_rows(), RECORDED)


if __name__ == "__main__":
    main()
