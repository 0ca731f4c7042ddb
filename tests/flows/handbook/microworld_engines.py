"""Stand-ins for the microworld's models: they answer as the models were taught to, at once and always the same."""

import random
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from factory.engines.base import Engine, Reply, Request
from factory.engines.open import Task
from factory.microworld.faults import STRONG, Mixture, draw_fault, mixtures, write_answer
from factory.microworld.questions import WORDS_PER_GROUP, lexicon
from factory.microworld.truth import find_named_word, parse, quality
from schemas.languages import CORE_LANGUAGES
from schemas.recipe.models import Model


def open_stand_in(
    model: Model, task: Task, *, devices: tuple[int, ...] = (), stop: threading.Event | None = None
) -> Engine:
    """Open the stand-in of a model, as ``open_engine`` opens the model."""
    return StandIn(Path(model.model).name, task)


class StandIn:
    """Answers questions of the microworld with a model's faults, translates them, or scores by the known truth."""

    def __init__(self, name: str, task: Task) -> None:
        self._name = name
        self._task = task

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            text = request.messages[-1]["content"]
            if self._task == "score":
                asked = request.messages[-2]["content"]
                score = 4 * (quality(asked, _language_of(asked), text) or 0) + self._rng(text).random() / 4
                yield Reply(request.request_id, score=score, num_prompt_tokens=20)
            else:
                said = self._translate(text, request.target_language or "en") if self._task == "translate" else ""
                said = said or self._answer(text, request.request_id)
                yield Reply(
                    request.request_id, text=said, finish_reason="stop", num_prompt_tokens=20, num_completion_tokens=12
                )

    def _answer(self, question: str, salt: str) -> str:
        language = _language_of(question)
        fact = parse(question, language)
        assert fact is not None, question
        rng = self._rng(question + salt)
        return write_answer(rng, language, fact, draw_fault(rng, self._mixture(language)))

    def _translate(self, text: str, target: str) -> str:
        fact, words = parse(text, "en"), lexicon(target)
        if fact is not None:
            return words.ask(fact, 0)
        word = find_named_word(text, "en")
        return words.fillers[0] if word is None else words.state(word // WORDS_PER_GROUP, word, 0)

    def _mixture(self, language: str) -> Mixture:
        return mixtures(self._name)[language] if self._name.startswith("teacher-") else STRONG

    def _rng(self, text: str) -> random.Random:
        return random.Random(f"{self._name} {text}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return


def _language_of(question: str) -> str:
    """Return the language of a question of the microworld."""
    return next((code for code in CORE_LANGUAGES if parse(question, code) is not None), "en")
