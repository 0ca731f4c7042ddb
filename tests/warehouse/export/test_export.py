import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
from huggingface_hub import DatasetCard
from polars.testing import assert_frame_equal

from schemas.errors import AuditError, WarehouseError
from schemas.recipe.recipe import Recipe
from tests.warehouse.small_build import ANSWERS, CONFIG_ID, QUESTIONS, answer_id, fill_lake, make_recipe
from warehouse.export.export import ExportResult, export_build
from warehouse.export.manifest import read_manifest, verify_export
from warehouse.lake.lake import Lake


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Lake, Recipe]]:
    folder = tmp_path_factory.mktemp("shared")
    recipe = make_recipe(folder)
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe)
        yield folder, lake, recipe


@pytest.fixture(scope="module")
def exported(shared: tuple[Path, Lake, Recipe]) -> ExportResult:
    folder, lake, recipe = shared
    return export_build(lake, CONFIG_ID, recipe, folder / "exports")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[tuple[Lake, Recipe]]:
    recipe = make_recipe(tmp_path)
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe, num_roots=6)
        yield lake, recipe


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    datasets.disable_progress_bars()


def load(path: Path, config: str, tmp_path: Path) -> Any:
    return datasets.load_dataset(str(path), config, cache_dir=str(tmp_path / "cache"))


def with_export(recipe: Recipe, **settings: Any) -> Recipe:
    return recipe.model_copy(update={"export": recipe.export.model_copy(update=settings)})


def test_layout_of_a_version(exported: ExportResult) -> None:
    assert exported.is_new
    assert exported.path.name == f"v0001-{exported.export_id[:8]}"
    assert exported.path.parent.name == "small"
    names = sorted(path.relative_to(exported.path).as_posix() for path in exported.path.rglob("*") if path.is_file())
    assert names == [
        "README.md",
        "manifest.json",
        "preference/eval-00000-of-00001.parquet",
        "preference/train-00000-of-00001.parquet",
        "sft/eval-00000-of-00001.parquet",
        "sft/train-00000-of-00001.parquet",
    ]
    assert verify_export(exported.path) == exported.manifest


@pytest.mark.parametrize("config", ["sft", "preference"])
def test_both_readers_see_the_same_rows(exported: ExportResult, config: str, tmp_path: Path) -> None:
    loaded = load(exported.path, config, tmp_path)
    for split in ("train", "eval"):
        scanned = pl.scan_parquet(f"{exported.path}/{config}/{split}-*.parquet").collect()
        assert scanned.height == exported.manifest.num_rows(config, split) > 0
        assert loaded[split].to_list() == scanned.to_dicts()


def test_sft_rows_end_with_the_selected_answer(exported: ExportResult) -> None:
    rows = pl.scan_parquet(f"{exported.path}/sft/*.parquet").collect()
    assert rows.height == 80
    row = rows.row(by_predicate=pl.col("prompt_id") == "0003-ar", named=True)
    assert row["messages"] == [
        {"role": "user", "content": QUESTIONS["ar"].format(n=3)},
        {"role": "assistant", "content": ANSWERS["ar"].format(n=3) + " bold"},
    ]
    assert {
        "language": "ar",
        "root_id": "0003-en",
        "completion_id": answer_id("0003-ar", "bold"),
        "teacher": "bold",
        "origin": "in_language",
        "prompt_translator": "translator",
        "translator": None,
        "reward": 2.0,
        "router": "reward",
        "round": 0,
        "source": "numbers",
        "source_row": "3",
    }.items() <= row.items()


def test_preference_rows_are_conversations(exported: ExportResult) -> None:
    rows = pl.scan_parquet(f"{exported.path}/preference/*.parquet").collect()
    assert rows.height == 80 + 60
    row = rows.row(
        by_predicate=(pl.col("prompt_id") == "0004-ja") & (pl.col("strategy") == "in_language_vs_translated"),
        named=True,
    )
    assert row["prompt"] == [{"role": "user", "content": QUESTIONS["ja"].format(n=4)}]
    assert row["chosen"] == [{"role": "assistant", "content": ANSWERS["ja"].format(n=4) + " able"}]
    assert row["rejected"] == [{"role": "assistant", "content": "⟨4⟩ ja"}]
    assert {
        "margin": 3.0,
        "chosen_teacher": "able",
        "chosen_reward": 2.0,
        "rejected_teacher": "able",
        "rejected_origin": "translated",
        "rejected_translator": "translator",
        "rejected_reward": -1.0,
    }.items() <= row.items()


def test_no_root_is_in_both_splits(exported: ExportResult) -> None:
    roots = {
        split: set().union(*(pl.read_parquet(path)["root_id"] for path in exported.path.glob(f"*/{split}-*")))
        for split in ("train", "eval")
    }
    assert all(roots.values())
    assert not roots["train"] & roots["eval"]


def test_a_leak_is_refused(fresh: tuple[Lake, Recipe], tmp_path: Path) -> None:
    lake, recipe = fresh
    prompt = lake.query("SELECT * FROM prompts WHERE prompt_id = '0001-hi'")
    lake.delete("prompts", "prompt_id = '0001-hi'")
    lake.append("prompts", prompt.with_columns(split=pl.lit("eval")))
    with pytest.raises(AuditError, match="0001-en with 0001-ar, 0001-en, 0001-hi, 0001-ja"):
        export_build(lake, CONFIG_ID, recipe, tmp_path / "exports")
    assert not (tmp_path / "exports").exists()


def test_a_selection_of_a_dropped_completion_is_refused(fresh: tuple[Lake, Recipe], tmp_path: Path) -> None:
    lake, recipe = fresh
    lake.delete("completions", "completion_id = ?", [answer_id("0001-en", "able")])
    translated = [answer_id(f"0001-{language}", "able", "translated") for language in ("ar", "hi", "ja")]
    first = min(answer_id("0001-en", "able"), *translated)
    with pytest.raises(AuditError, match=rf"5 selected or paired completions .* first is {first}"):
        export_build(lake, CONFIG_ID, recipe, tmp_path / "exports")


def test_an_unchanged_build_is_the_same_version(shared: tuple[Path, Lake, Recipe], exported: ExportResult) -> None:
    folder, lake, recipe = shared
    stamps = {path: path.stat().st_mtime_ns for path in exported.path.rglob("*")}
    again = export_build(lake, CONFIG_ID, recipe, folder / "exports")
    assert not again.is_new
    assert (again.path, again.manifest) == (exported.path, exported.manifest)
    assert stamps == {path: path.stat().st_mtime_ns for path in exported.path.rglob("*")}
    row = lake.query("SELECT * FROM exports WHERE export_id = ?", [exported.export_id]).row(0, named=True)
    assert row["snapshot"] == exported.manifest.snapshot < lake.snapshot()
    assert row["path"] == str(exported.path)
    assert json.loads(row["manifest"])["files"]


def test_a_deleted_version_is_written_again_with_equal_bytes(fresh: tuple[Lake, Recipe], tmp_path: Path) -> None:
    lake, recipe = fresh
    first = export_build(lake, CONFIG_ID, recipe, tmp_path / "exports")
    shutil.rmtree(first.path)
    again = export_build(lake, CONFIG_ID, recipe, tmp_path / "exports")
    assert again.is_new
    assert again.path == first.path
    assert again.manifest.files == first.manifest.files
    assert lake.query("SELECT path FROM exports").rows() == [(str(first.path),)]
    lake.delete("selections", "prompt_id = '0001-ar'")
    second = export_build(lake, CONFIG_ID, recipe, tmp_path / "exports")
    assert second.path.name == f"v0002-{second.export_id[:8]}"
    assert second.manifest.num_rows("sft") == first.manifest.num_rows("sft") - 1
    elsewhere = export_build(lake, CONFIG_ID, recipe, tmp_path / "elsewhere", snapshot=first.manifest.snapshot)
    assert elsewhere.is_new
    assert elsewhere.path.name == first.path.name
    assert elsewhere.manifest.files == first.manifest.files


def test_equal_rows_of_another_warehouse_are_equal_bytes(fresh: tuple[Lake, Recipe], tmp_path: Path) -> None:
    lake, recipe = fresh
    first = export_build(lake, CONFIG_ID, recipe, tmp_path / "exports")
    other = make_recipe(tmp_path / "other").model_copy(update={"prompts": recipe.prompts})
    with Lake.open(other.warehouse) as second:
        fill_lake(second, other, num_roots=6)
        result = export_build(second, CONFIG_ID, other, tmp_path / "other/exports")
    assert result.export_id == first.export_id
    assert result.manifest.files == first.manifest.files


def test_shards_are_bounded_and_hold_every_row_once(shared: tuple[Path, Lake, Recipe], tmp_path: Path) -> None:
    _, lake, recipe = shared
    small = with_export(recipe, max_shard_mb=0.02, formats=("parquet", "jsonl"))
    result = export_build(lake, CONFIG_ID, small, tmp_path / "exports")
    files = result.manifest.files
    assert max(file.num_bytes for file in files) <= 20_000
    whole = pl.read_parquet(f"{result.path}/preference/train-*.parquet")
    assert sum(file.path.startswith("preference/train") for file in files) > 4
    assert whole["pair_id"].is_sorted()
    assert whole.height == whole["pair_id"].n_unique() == result.manifest.num_rows("preference", "train")
    lines = pl.concat(
        pl.read_ndjson(result.path / file.path, schema=whole.schema)
        for file in files
        if file.path.startswith("preference/train") and file.path.endswith("jsonl")
    )
    assert_frame_equal(lines, whole)
    assert verify_export(result.path) == result.manifest


def test_files_do_not_depend_on_how_the_work_is_cut(
    shared: tuple[Path, Lake, Recipe], exported: ExportResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lake, recipe = shared
    monkeypatch.setattr("warehouse.export.ordered_rows.PART_ROWS", 7)
    seen: list[int] = []
    result = export_build(lake, CONFIG_ID, recipe, tmp_path / "exports", on_progress=lambda done, _: seen.append(done))
    assert len(seen) > 20
    assert result.is_new
    assert result.manifest.files == exported.manifest.files


def test_jsonl_alone_loads_with_its_types_and_unescaped_text(shared: tuple[Path, Lake, Recipe], tmp_path: Path) -> None:
    _, lake, recipe = shared
    result = export_build(lake, CONFIG_ID, with_export(recipe, formats=("jsonl",)), tmp_path / "exports")
    text = next((result.path / "sft").glob("train-*.jsonl")).read_text("utf-8")
    assert "قُلْه في سطرٍ واحد" in text
    assert "\\u06" not in text
    loaded = load(result.path, "sft", tmp_path)
    assert loaded["train"].num_rows == result.manifest.num_rows("sft", "train")
    assert str(loaded["train"].features["translator"]) == "Value('string')"
    assert {row["messages"][-1]["content"] for row in loaded["eval"]} >= {ANSWERS["ja"].format(n=0) + " bold"}


def test_both_formats_do_not_double_a_config(shared: tuple[Path, Lake, Recipe], tmp_path: Path) -> None:
    _, lake, recipe = shared
    result = export_build(lake, CONFIG_ID, with_export(recipe, formats=("jsonl", "parquet")), tmp_path / "exports")
    assert load(result.path, "sft", tmp_path)["train"].num_rows == result.manifest.num_rows("sft", "train") == 64


def test_a_build_without_eval_rows_loads(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe, num_roots=3, eval_every=0)
        lake.delete("pairs", "true")
        result = export_build(lake, CONFIG_ID, recipe, tmp_path / "exports")
    assert set(load(result.path, "sft", tmp_path)) == {"train"}
    assert pl.scan_parquet(f"{result.path}/sft/eval-*.parquet").collect().is_empty()
    assert pl.scan_parquet(f"{result.path}/preference/train-*.parquet").collect().is_empty()
    assert "config_name: preference" not in (result.path / "README.md").read_text("utf-8")


def test_nothing_to_export_is_said(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe, num_roots=3)
        lake.delete("pairs", "true")
        with pytest.raises(WarehouseError, match=r"nothing to export at snapshot .* no rows for preference"):
            export_build(lake, CONFIG_ID, with_export(recipe, sft=False), tmp_path / "exports")
    assert not (tmp_path / "exports").exists()


def test_another_build_in_the_lake_is_left_out(shared: tuple[Path, Lake, Recipe], tmp_path: Path) -> None:
    _, lake, recipe = shared
    other = "d" * 32
    fill_lake(lake, recipe, num_roots=2, config_id=other)
    result = export_build(lake, other, recipe, tmp_path / "exports")
    assert result.manifest.num_rows("sft") == 8
    assert result.manifest.config_id == other


def test_counts_in_the_manifest(exported: ExportResult) -> None:
    manifest = read_manifest(exported.path)
    assert manifest.counts["sft"]["train"].languages == dict.fromkeys(("ar", "en", "hi", "ja"), 16)
    assert manifest.total("sft", "teachers") == {"able": 52, "bold": 28}
    assert manifest.total("preference", "strategies") == {"best_vs_worst": 80, "in_language_vs_translated": 60}
    assert manifest.recipe["name"] == "small"
    assert "warehouse" not in manifest.recipe


def test_card_states_licences_counts_and_snapshot(exported: ExportResult) -> None:
    card = (exported.path / "README.md").read_text("utf-8")
    data = DatasetCard(card).data.to_dict()
    assert data["language"] == ["ar", "en", "hi", "ja"]
    assert data["license"] == ["apache-2.0", "cc-by-4.0", "unknown"]
    assert [(config["config_name"], config.get("default")) for config in data["configs"]] == [
        ("sft", True),
        ("preference", None),
    ]
    assert "| teacher | able (org/able) | apache-2.0 |" in card
    assert "| teacher | bold (org/bold) | not stated |" in card
    assert "| prompts | numbers (numbers.jsonl) | CC-BY-4.0 |" in card
    assert "| Arabic (`ar`) | 16 | 4 | 28 | 7 |" not in card
    assert "| Arabic (`ar`) | 16 | 4 | 32 | 8 |" in card
    assert "| in_language_vs_translated | 60 |" in card
    assert f"| warehouse snapshot | {exported.manifest.snapshot} |" in card
    assert str(exported.path) not in card


@pytest.mark.parametrize("damage", ["flip", "delete", "add"])
def test_verify_names_what_was_changed(exported: ExportResult, tmp_path: Path, damage: str) -> None:
    path = shutil.copytree(exported.path, tmp_path / "copy")
    shard = path / "sft/train-00000-of-00001.parquet"
    if damage == "flip":
        data = bytearray(shard.read_bytes())
        data[100] ^= 1
        shard.write_bytes(data)
        expected = "sft/train-00000-of-00001.parquet has the SHA-256"
    elif damage == "delete":
        shard.unlink()
        expected = "sft/train-00000-of-00001.parquet is missing"
    else:
        shutil.copy(shard, path / "sft/train-more.parquet")
        expected = "sft/train-more.parquet is not in the manifest"
    with pytest.raises(WarehouseError, match=expected):
        verify_export(path)


KILLED_EXPORT = """
import os, signal, sys
from pathlib import Path
from tests.warehouse.small_build import CONFIG_ID, make_recipe
from warehouse.export.export import export_build
from warehouse.lake.lake import Lake

folder = Path(sys.argv[1])
recipe = make_recipe(folder)

def kill(num_rows, num_all):
    if num_rows > num_all / 2:
        os.kill(os.getpid(), signal.SIGKILL)

with Lake.open(recipe.warehouse) as lake:
    export_build(lake, CONFIG_ID, recipe, folder / "exports", on_progress=kill)
"""


def test_a_killed_export_leaves_no_half_version(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe, num_roots=6)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_EXPORT, str(tmp_path)], cwd=Path(__file__).parents[3], env={**os.environ}
    )
    assert done.returncode == -signal.SIGKILL
    home = tmp_path / "exports/small"
    assert [path.name for path in home.glob("v*")] == []
    assert len(list(home.glob(".unfinished-*"))) == 1
    with Lake.open(recipe.warehouse) as lake:
        assert lake.query("SELECT * FROM exports").is_empty()
        result = export_build(lake, CONFIG_ID, recipe, tmp_path / "exports")
    assert sorted(path.name for path in home.iterdir()) == [".lock", result.path.name]
    assert verify_export(result.path) == result.manifest


def test_a_failed_export_leaves_nothing(shared: tuple[Path, Lake, Recipe], tmp_path: Path) -> None:
    _, lake, recipe = shared
    snapshot = lake.snapshot()

    def fail(num_rows: int, num_all: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(WarehouseError, match=r"exports/small failed: .*No space left"):
        export_build(lake, CONFIG_ID, recipe, tmp_path / "exports", on_progress=fail)
    assert [path.name for path in (tmp_path / "exports/small").iterdir()] == [".lock"]
    assert lake.snapshot() == snapshot


def test_progress_counts_every_row(shared: tuple[Path, Lake, Recipe], tmp_path: Path) -> None:
    _, lake, recipe = shared
    seen: list[tuple[int, int]] = []
    export_build(lake, CONFIG_ID, recipe, tmp_path / "exports", on_progress=lambda done, of: seen.append((done, of)))
    assert seen == sorted(seen)
    assert seen[-1] == (80 + 80 + 60,) * 2
