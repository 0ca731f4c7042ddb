"""Benchmarks like m-ArenaHard: English prompts, translated by a build's own stages, as a data set of one config a language."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from factory.engines.open import open_engine
from factory.inputs.files import find_value
from factory.stages.sources import open_rows, read_source
from flows.build.run import execute_build
from flows.lanes.context import OpenEngine
from schemas.disk import whole_folder, write_text
from schemas.errors import InputError
from schemas.languages import LANGUAGES
from schemas.recipe.arena import LAYOUTS, ArenaRecipe
from warehouse.build.scope import Scope
from warehouse.export.card import write_front_matter
from warehouse.lake.lake import Lake
from warehouse.statements import read_sql

CARD = "README.md"
MISSING = "missing.jsonl"
SPLIT_FILE = "test-00000-of-00001.parquet"


@dataclass(frozen=True, slots=True)
class Arena:
    """A data set that was written. ``missing`` has the columns of its file; ``num_sent`` counts what was asked now."""

    path: Path
    num_rows: dict[str, int]
    missing: pl.DataFrame
    num_sent: int


def build_arena(
    recipe: ArenaRecipe,
    output: Path,
    *,
    limit: int | None = None,
    quiet: bool = False,
    open_engine: OpenEngine = open_engine,
) -> Arena:
    """Translate a benchmark's prompts, or go on with it, and write the data set to a folder.

    A prompt that could not be translated into a language is not in that language's rows; it is in ``missing.jsonl``,
    with the reason, as are rows of the source that are not prompts.

    Raises:
        InputError: the source lacks a label, two of its rows have one id, or the folder holds something else.
        FactoryError: whatever else the user can mend.
    """
    _refuse_other_folder(output)
    recipe = _hold_out(recipe, limit)
    questions = _read_questions(recipe)
    summary = execute_build(recipe, until="translate", quiet=quiet, open_engine=open_engine)
    with Lake.open(recipe.warehouse, read_only=True) as lake, Scope.open(lake, summary.config_id) as scope:
        prompts = scope.query("SELECT root_id, language, messages[-1].content AS prompt FROM kept_prompts")
        missing = scope.query(read_sql("reports/missing_prompts", config_id=summary.config_id))
    rows = questions.join(prompts, on="root_id", how="inner", maintain_order="left")
    named = missing.join(questions.select("root_id", "question_id"), on="root_id", how="left", maintain_order="left")
    lacking = named.select("question_id", "language", "stage", "reason", "detail")
    num_rows = _write(recipe, summary.config_id, rows, lacking, output)
    return Arena(output, num_rows, lacking, summary.num_sent)


def _hold_out(recipe: ArenaRecipe, limit: int | None) -> ArenaRecipe:
    source = recipe.source
    limits = [number for number in (limit, source.limit) if number is not None]
    changed = source.model_copy(update={"eval_percent": 100.0, "limit": min(limits, default=None)})
    return recipe.model_copy(update={"prompts": (changed,)})


def _read_questions(recipe: ArenaRecipe) -> pl.DataFrame:
    """Return the source's prompts, in their order: root_id, question_id and the labels of the layout."""
    source, columns = recipe.source, recipe.label_columns
    read = {row["row"]: row for frame in read_source(source) for row in frame.to_dicts() if row["reason"] is None}
    questions: dict[str, dict[str, str | None]] = {}
    ids: set[str] = set()
    for raw in open_rows(source, tuple(columns.values())):
        row = read.get(raw.row)
        if row is None or raw.value is None:
            continue
        question_id = row["source_row"] or row["row"]
        if question_id in ids:
            raise InputError(f"{raw.where}: the id {question_id!r} is there twice; ids must differ")
        ids.add(question_id)
        try:
            labels = {name: find_value(raw.value, column) for name, column in columns.items()}
        except LookupError as error:
            raise InputError(f"{raw.where}: {error.args[0]}; [arena.labels] says where labels are") from error
        named = {name: None if value is None else str(value) for name, value in labels.items()}
        # Of two equal prompts the first one counts; the other is rejected as a duplicate.
        root_id = row["prompt_id"]
        questions.setdefault(root_id, {"root_id": root_id, "question_id": question_id, **named})
    names = ("root_id", "question_id", *columns)
    return pl.DataFrame(list(questions.values()), schema=dict.fromkeys(names, pl.String))


def _refuse_other_folder(output: Path) -> None:
    """Refuse to replace what is not a data set of this command."""
    if output.exists() and not ((output / CARD).is_file() and (output / MISSING).is_file()):
        raise InputError(f"{output} is there already and is not a data set of this command; name another folder")


def _write(
    recipe: ArenaRecipe, config_id: str, rows: pl.DataFrame, missing: pl.DataFrame, output: Path
) -> dict[str, int]:
    """Write the data set; return the number of rows by language."""
    num_rows = {}
    with whole_folder(output, replaces=True) as folder:
        for language in recipe.languages:
            own = rows.filter(language=language).select(LAYOUTS[recipe.layout])
            num_rows[language] = own.height
            if own.height:
                (folder / language).mkdir()
                own.write_parquet(folder / language / SPLIT_FILE)
        missing.write_ndjson(folder / MISSING)
        write_text(folder / CARD, "\n".join(_card(recipe, config_id, num_rows, missing)) + "\n")
    return num_rows


def _card(recipe: ArenaRecipe, config_id: str, num_rows: dict[str, int], missing: pl.DataFrame) -> Iterator[str]:
    """Yield the lines of the card, whose front matter makes each language a config."""
    filled = [language for language, number in num_rows.items() if number]
    configs = {language: {"test": f"{language}/{SPLIT_FILE}"} for language in filled}
    yield write_front_matter(configs, filled, pretty_name=recipe.name)
    yield f"# {recipe.name}"
    yield ""
    yield (
        f"Prompts of {_name(recipe)}, translated by {_model(recipe)} at temperature "
        f"{recipe.translation.sampling.temperature:g}, in the columns of {recipe.layout}; prompts in the source's own "
        f"language are as they were. Build `{config_id}`."
    )
    yield ""
    licences = recipe.source.licence or "not stated", recipe.translation.licence or "not stated"
    yield f"Licence of the prompts: {licences[0]}; of the translator: {licences[1]}."
    yield ""
    yield "```python"
    yield f'datasets.load_dataset(path, "{filled[0] if filled else "en"}", split="test")'
    yield "```"
    yield ""
    yield "| language | rows | missing |"
    yield "| --- | ---: | ---: |"
    absent: dict[Any, int] = dict(missing["language"].value_counts().iter_rows())
    for language, number in num_rows.items():
        yield f"| {LANGUAGES[language].name} (`{language}`) | {number:,} | {absent.get(language, 0):,} |"
    if missing.height:
        yield ""
        yield f"What is missing, and why, is in `{MISSING}`:"
        yield ""
        yield "| reason | rows |"
        yield "| --- | ---: |"
        for reason, number in missing["reason"].value_counts(sort=True).iter_rows():
            yield f"| {reason or 'not tried yet'} | {number:,} |"


def _name(recipe: ArenaRecipe) -> str:
    place = recipe.source.dataset or Path(recipe.source.path or "").name
    return f"{recipe.source.name} ({place})"


def _model(recipe: ArenaRecipe) -> str:
    """Return the translator's name, without the folder that it lies in here."""
    model = recipe.translation.model
    return Path(model).name if Path(model).is_absolute() else model
