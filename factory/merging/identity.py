"""The identity of a merge: its settings, and its parents by content, never by path."""

from pydantic import BaseModel

from factory.engines.fingerprint import fingerprint_model
from schemas.ids import Json
from schemas.recipe.merging import MergeModel, MergeSettings
from schemas.recipe.models import Model
from schemas.toml.section import FINGERPRINTED, MODEL, fields_marked, identify


def identify_merge(settings: MergeSettings) -> dict[str, Json]:
    """Return the settings with each parent's fingerprint in place of its name, revision and adapter.

    Raises:
        EngineError: a parent is missing.
    """
    return identify(settings, stand_in=_identify_parent)


def fingerprint_parents(settings: MergeSettings) -> list[str]:
    """Return the fingerprints of all models of a merge, in order; that of the base, if there is one, comes last.

    Raises:
        EngineError: a parent is missing.
    """
    return [_fingerprint(model) for model in (*settings.models, *([] if settings.base is None else [settings.base]))]


def _identify_parent(section: BaseModel) -> Json:
    if not isinstance(section, MergeModel):
        return None
    named = dict.fromkeys(fields_marked(MergeModel, FINGERPRINTED, MODEL))
    return identify(section) | named | {"model": _fingerprint(section)}


def _fingerprint(parent: MergeModel) -> str:
    return fingerprint_model(Model(model=parent.model, revision=parent.revision, adapter=parent.adapter))
