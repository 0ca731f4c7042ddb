"""The identity of a run: settings, models and data by content, never by path. Computed without importing torch."""

import json
from dataclasses import dataclass
from pathlib import Path

from factory.engines.fingerprint import fingerprint_model, remembered_digest
from factory.inputs.finding import find_files, is_on_hub
from factory.inputs.hf_datasets import find_folder_files, is_saved_dataset, resolve_revision
from factory.training.curves import read_metrics
from factory.training.data.reading import is_files, read_export_id
from schemas.disk import write_text
from schemas.errors import TrainingError
from schemas.ids import Json, content_id, file_digest
from schemas.recipe.models import Model
from schemas.recipe.training import TrainSettings
from schemas.toml.section import CONTENT, EXECUTION, FINGERPRINTED, identify

RUN_FILE = "run.json"


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """The parts that identify a run: ids of models, data and template, and the settings."""

    model: str
    reference: str | None
    data: str
    eval_data: str | None
    chat_template: str | None
    settings: dict[str, Json]

    @property
    def id(self) -> str:
        return content_id("training", self.parts())

    def parts(self) -> dict[str, Json]:
        """Return all parts in one flat dictionary; settings have keys such as ``settings.beta``."""
        own = {name: getattr(self, name) for name in ("model", "reference", "data", "eval_data", "chat_template")}
        return own | {f"settings.{key}": value for key, value in self.settings.items()}


def identify_run(settings: TrainSettings) -> RunIdentity:
    """Return the identity of a run.

    Raises:
        EngineError: a model is missing.
        InputError: the data does not exist, or the hub cannot be reached and nothing is cached.
        TrainingError: the chat template is missing, or a revision was given for data that is not on the hub.
    """
    template, pinned = settings.chat_template, pin_data(settings)
    if template is not None and not Path(template).is_file():
        raise TrainingError(f"there is no chat template '{template}'")
    return RunIdentity(
        model=fingerprint_model(Model(model=settings.model)),
        reference=None if settings.reference is None else fingerprint_model(Model(model=settings.reference)),
        data=_identify_data(pinned, pinned.data, pinned.revision),
        eval_data=None if pinned.eval_data is None else _identify_data(pinned, pinned.eval_data, pinned.eval_revision),
        chat_template=None if template is None else file_digest(Path(template)),
        settings=identify(settings, without={EXECUTION, FINGERPRINTED, *CONTENT}),
    )


def pin_data(settings: TrainSettings) -> TrainSettings:
    """Return settings with the revisions of hub data sets resolved to commits, by which the run is identified.

    Raises:
        InputError: there is no such data set or revision, or the hub cannot be reached and nothing is cached.
        TrainingError: a revision was given for data that is not on the hub.
    """
    pinned = {"revision": _resolve(settings.data, settings.revision, settings)}
    if settings.eval_data is not None:
        pinned["eval_revision"] = _resolve(settings.eval_data, settings.eval_revision, settings)
    return settings.model_copy(update=pinned)


def _resolve(data: str, revision: str | None, settings: TrainSettings) -> str | None:
    if is_on_hub(data):
        return resolve_revision(data, revision, settings.dataset_config)
    if revision is not None:
        raise TrainingError(f"revision '{revision}' was given, but {data} is not a data set of the hub; leave it out")
    return None


def _identify_data(settings: TrainSettings, data: str, revision: str | None) -> str:
    """Return an export's id, the digest of the files to be read, or the name and commit of a hub data set."""
    export_id = read_export_id(data)
    if export_id is not None:
        return export_id
    if is_on_hub(data):
        return f"{data}@{revision}"
    folder = Path(data)
    if not folder.is_dir():
        return content_id("files", [file_digest(path) for path in find_files(data)[0]])
    if is_saved_dataset(folder):
        return content_id("folder", remembered_digest(folder))
    if is_files(settings.dataset_config, data, settings.split):
        return content_id("shards", _identify_files(folder, find_files(data)[0]))
    found = find_folder_files(folder, settings.dataset_config)
    said = {"options": found.options, "features": found.features} if found.options or found.features else None
    files = _identify_files(folder, found.of(settings.split))
    return content_id("shards", files if said is None else [*files, json.dumps(said, sort_keys=True, default=str)])


def _identify_files(folder: Path, paths: list[Path]) -> list[Json]:
    return [[path.relative_to(folder).as_posix(), file_digest(path)] for path in paths]


def claim_output(output: Path, identity: RunIdentity, *, writes: bool = True) -> None:
    """Assign the output folder to a run, unless it already belongs to that run.

    A different run that has not finished a step yet is displaced. With ``writes`` false, the folder is only checked.

    Raises:
        TrainingError: the folder belongs to a different run; the message says what differs.
    """
    path, ours = output / RUN_FILE, identity.parts()
    there = json.loads(path.read_bytes()) if path.is_file() else None
    if there is not None and (differing := sorted(k for k in there.keys() | ours if there.get(k) != ours.get(k))):
        if _has_begun(output):
            key = differing[0]
            raise TrainingError(
                f"{output} contains a different run, which differs in {', '.join(differing)} "
                f"({key}: {there.get(key)!r} there, {ours.get(key)!r} now); choose another output folder or delete it"
            )
        there = None
    if there is None and writes:
        output.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(ours, indent=2, ensure_ascii=False) + "\n")


def _has_begun(output: Path) -> bool:
    return any(output.glob("checkpoints/step-*")) or any(line["step"] for line in read_metrics(output))
