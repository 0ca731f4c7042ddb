"""What identifies a merge: its settings, and its parents by content, never by path."""

from typing import Any

from factory.engines.fingerprint import fingerprint_model
from schemas.merging import MergeModel, MergeSettings
from schemas.models import Model


def identify_merge(settings: MergeSettings) -> dict[str, Any]:
    """Return the settings with each parent's fingerprint in place of its name, revision and adapter.

    Raises:
        EngineError: a parent is missing.
    """
    identity = settings.identity()
    named = [*identity["models"], *([] if settings.base is None else [identity["base"]])]
    for model, fingerprint in zip(named, fingerprint_parents(settings), strict=True):
        model |= {"model": fingerprint, "revision": None, "adapter": None}
    return identity


def fingerprint_parents(settings: MergeSettings) -> list[str]:
    """Return the fingerprints of all models that a merge is made of; that of the base, if there is one, is the last.

    Raises:
        EngineError: a parent is missing.
    """
    return [_fingerprint(model) for model in (*settings.models, *([] if settings.base is None else [settings.base]))]


def _fingerprint(parent: MergeModel) -> str:
    return fingerprint_model(Model(model=parent.model, revision=parent.revision, adapter=parent.adapter))
