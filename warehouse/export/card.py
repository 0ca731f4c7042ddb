"""The dataset card of an export: a README.md whose front matter makes ``datasets.load_dataset(path, config)`` work."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.languages import LANGUAGES
from schemas.recipe.prompts import PromptSource
from schemas.recipe.recipe import Recipe
from warehouse.export.manifest import SPLITS, Manifest
from warehouse.export.shards import LAYOUTS

# fmt: off
HUB_LICENCES = frozenset({
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0", "gpl-3.0", "lgpl-3.0",
    "agpl-3.0", "odc-by", "odbl", "pddl", "gemma", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "openrail",
    "unlicense",
})
# fmt: on
"""Licences that the hub knows by these names; it refuses a card with any other, which therefore become ``other``."""

NOT_STATED = "not stated"


def write_card(recipe: Recipe, manifest: Manifest) -> str:
    """Return the text of the README.md of a version."""
    return "\n".join([_front_matter(recipe, manifest), *_body(recipe, manifest)]) + "\n"


def write_front_matter(
    configs: Mapping[str, Mapping[str, str]], languages: Iterable[str], *, default: str | None = None, **fields: Any
) -> str:
    """Return the block of YAML that a card begins with.

    Args:
        configs: which files each config has, as a glob below the card's folder, by split.
        languages: codes of ``LANGUAGES``.
        default: the config that is loaded where none is named; by default one must be.
        fields: whatever else ``huggingface_hub.DatasetCardData`` takes.
    """
    from huggingface_hub import (
        DatasetCardData,
    )  # a fifth of a second, which an export that is there already need not wait

    listed = [
        {"config_name": name}
        | ({"default": True} if name == default else {})
        | {"data_files": [{"split": split, "path": path} for split, path in files.items()]}
        for name, files in configs.items()
    ]
    codes = sorted({LANGUAGES[code].detector_code for code in languages})
    data = DatasetCardData(language=codes, task_categories=["text-generation"], **fields, configs=listed)
    return f"---\n{data.to_yaml()}\n---\n"


def _front_matter(recipe: Recipe, manifest: Manifest) -> str:
    form = "parquet" if "parquet" in recipe.export.formats else "jsonl"
    filled = {
        config: {split: f"{config}/{split}-*.{form}" for split in SPLITS if manifest.num_rows(config, split)}
        for config in manifest.counts
        if manifest.num_rows(config)
    }
    return write_front_matter(
        filled,
        _languages(manifest),
        default=next(iter(filled), None),
        pretty_name=f"{recipe.name} {manifest.version}",
        license=_hub_licences(recipe),
        tags=["synthetic", "multilingual", "post-training"],
        dataset_info=[
            {"config_name": config, "features": [_feature(field) for field in LAYOUTS[config]]} for config in filled
        ],
    )


def _feature(field: "pa.Field[pa.DataType]") -> dict[str, object]:
    """Return a column as ``datasets`` writes it in cards: a name with its dtype, or with the fields of a list's structs."""
    if pa.types.is_list(field.type):
        return {"name": field.name, "list": [_feature(part) for part in field.type.value_type]}
    return {"name": field.name, "dtype": "float64" if field.type == pa.float64() else str(field.type)}


def _body(recipe: Recipe, manifest: Manifest) -> Iterator[str]:
    yield f"# {recipe.name} {manifest.version}"
    yield ""
    yield (
        "Multilingual post-training data. Every teacher of the pool answered every prompt, a reward model scored the "
        "answers that passed the gates, one answer per prompt was selected for supervised fine-tuning (`sft`), and "
        "pairs of a better and a worse answer were made for preference training (`preference`). Prompts that are "
        "translations of each other are all on the same side of the train/eval split."
    )
    yield ""
    yield from _table(("", ""), _facts(recipe, manifest))
    yield "## Use"
    yield ""
    yield "```python"
    for config in manifest.counts:
        if manifest.num_rows(config):
            yield f'datasets.load_dataset(path, "{config}")'
    yield "```"
    yield ""
    yield "## Rows"
    yield ""
    heads = [(config, split) for config in manifest.counts for split in SPLITS]
    rows: list[tuple[str | int, ...]] = [
        (f"{LANGUAGES[code].name} (`{code}`)", *(manifest.counts[c][s].languages.get(code, 0) for c, s in heads))
        for code in _languages(manifest)
    ]
    rows.append(("total", *(manifest.num_rows(config, split) for config, split in heads)))
    yield from _table(("language", *(f"{config} {split}" for config, split in heads)), rows)
    yield "## Who wrote the answers"
    yield ""
    names = sorted({name for config in manifest.counts for name in manifest.total(config, "teachers")})
    yield from _table(
        ("teacher", *(f"{config} rows" for config in manifest.counts)),
        [(name, *(manifest.total(config, "teachers")[name] for config in manifest.counts)) for name in names],
    )
    yield "A preference row counts for the teacher of its chosen answer."
    yield ""
    if strategies := manifest.total("preference", "strategies"):
        yield "## How the pairs were made"
        yield ""
        yield from _table(("strategy", "pairs"), list(strategies.items()))
    yield "## Licences, as the recipe states them"
    yield ""
    yield from _table(
        ("what", "name", "licence"), [(role, name, stated or NOT_STATED) for role, name, stated in _ingredients(recipe)]
    )


def _facts(recipe: Recipe, manifest: Manifest) -> list[tuple[str, str]]:
    return [
        ("recipe", recipe.name),
        ("build", manifest.config_id),
        ("export", manifest.export_id),
        ("warehouse snapshot", str(manifest.snapshot)),
        ("made at", manifest.created_at.strftime("%Y-%m-%d %H:%M UTC")),
        ("routing", recipe.routing.method),
        ("reward models", ", ".join(_public_name(model.model) or model.name for model in recipe.reward_models)),
    ]


def _languages(manifest: Manifest) -> list[str]:
    return sorted({code for config in manifest.counts for code in manifest.total(config, "languages")})


def _table(head: tuple[str, ...], rows: Sequence[tuple[str | int, ...]]) -> Iterator[str]:
    """Yield a Markdown table and a blank line; numbers stand on the right."""
    right = [all(isinstance(row[at], int) for row in rows) for at in range(len(head))]
    yield _line(head)
    yield _line("---:" if is_number else "---" for is_number in right)
    yield from (_line(row) for row in rows)
    yield ""


def _line(cells: Iterable[str | int]) -> str:
    texts = (f"{cell:,}" if isinstance(cell, int) else cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(texts)} |"


def _hub_licences(recipe: Recipe) -> list[str]:
    stated = {licence for _, _, licence in _ingredients(recipe)}
    known = {"unknown" if licence is None else licence.lower() for licence in stated}
    return sorted({name if name in HUB_LICENCES | {"unknown"} else "other" for name in known})


def _ingredients(recipe: Recipe) -> Iterator[tuple[str, str, str | None]]:
    """Yield role, name and stated licence of everything that the rows were made from."""
    for source in recipe.prompts:
        yield "prompts", f"{source.name} ({_place(source)})", source.licence
    for teacher in recipe.teachers:
        model = teacher.model or "recorded completions"
        yield "teacher", f"{teacher.name} ({_public_name(model)})", teacher.licence
    if recipe.translation:
        yield "translator", _public_name(recipe.translation.model), recipe.translation.licence


def _place(source: PromptSource) -> str:
    return source.dataset or Path(source.path or "").name


def _public_name(model: str) -> str:
    """Return a model's hub id, or the last part of a local folder: a card names no paths of the machine."""
    return Path(model).name if model.startswith("/") else model
