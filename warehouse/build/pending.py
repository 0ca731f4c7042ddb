"""Wanted minus have: what each lane of a build still has to do, as a SELECT to stream.

All of them read the views of its scope, so that they can be run slice by slice, and leave out what the lane's own
failures have set aside, whatever the reason: who wants transient failures tried again deletes them first. Text and
messages come along, so that planning needs nothing else. Each returns a SELECT.
"""

from collections.abc import Sequence

from warehouse.statements import read_sql


def pending_prompt_translations(settings_id: str, languages: Sequence[str]) -> str:
    """Return the requests of a translator: every source prompt into each of ``languages`` but its own.

    Columns: prompt_id (of the translation), parent_id, root_id, source_language, language, messages (of the parent),
    source, source_row, split.
    """
    return read_sql("pending/prompt_translations", settings_id=settings_id, languages=languages)


def pending_completions(settings_id: str, languages: Sequence[str], num_samples: int) -> str:
    """Return the requests of a teacher: ``num_samples`` for each prompt in its ``languages``.

    Columns: completion_id, prompt_id, root_id, language, messages, sample_index.
    """
    return read_sql("pending/completions", settings_id=settings_id, languages=languages, num_samples=num_samples)


def pending_completion_translations(settings_id: str, languages: Sequence[str], teachers: Sequence[str]) -> str:
    """Return the requests of a translator: the kept English answers of ``teachers`` into those of ``languages`` in which
    the build has the same prompt.

    Columns: completion_id (of the translation), parent_id, prompt_id (the sibling that it answers), root_id,
    source_language, language, text and finish_reason (of the parent), model, model_fingerprint, round, sample_index.
    """
    return read_sql("pending/completion_translations", settings_id=settings_id, languages=languages, teachers=teachers)


def pending_rewards(settings_id: str) -> str:
    """Return the requests of a reward model: every kept completion that it has not scored.

    Columns: completion_id, prompt_id, language, messages, text.
    """
    return read_sql("pending/rewards", settings_id=settings_id)
