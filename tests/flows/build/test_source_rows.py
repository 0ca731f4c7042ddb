"""How often a source is opened and read for a build: once, as far as that goes."""

import gzip
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import duckdb
import polars as pl
import pytest

from factory.inputs import delimited, files
from factory.inputs.opening import open_text
from factory.stages import sources
from factory.stages.prompts import SeenPrompts, build_prompts
from factory.stages.sources import read_source
from flows.build.source_rows import list_while_read
from schemas.recipe.prompts import PromptGates, PromptSource
from warehouse.lake.staging import Frames

NUM_ROWS = 2000
GATES = PromptGates(near_duplicate_similarity=0)


def read(source: PromptSource) -> tuple[int, int]:
    """Read a source as a build with recorded answers does; return how many rows were prompts, and how many listed."""
    with Frames("source_rows") as listed:
        frames = list_while_read(read_source(source, beyond=None), source, "c" * 32, listed)
        seen = SeenPrompts(GATES)
        landed = [
            build_prompts(raw, source=source, gates=GATES, config_id="c" * 32, seen=seen, detect=None) for raw in frames
        ]
        return sum(part.rows.height for part in landed), duckdb.sql(
            f"SELECT count(*) FROM ({listed.select})"
        ).fetchall()[0][0]


def make_source(**given: Any) -> PromptSource:
    columns = {"prompt": "q", "id": "id"}
    return PromptSource.model_validate({"name": "s", "language": "he", "limit": 10, "columns": columns} | given)


@pytest.mark.parametrize("ending", [".tsv", ".tsv.gz", ".csv", ".jsonl"])
def test_a_file_is_read_once_and_the_quotes_of_a_tsv_file_once_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    rows = pl.DataFrame({"id": map(str, range(NUM_ROWS)), "q": [f"מהו {at}?" for at in range(NUM_ROWS)]})
    path = tmp_path / f"rows{ending}"
    plain = tmp_path / "plain"
    rows.write_ndjson(plain) if ending == ".jsonl" else rows.write_csv(
        plain, separator="\t" if "tsv" in ending else ","
    )
    write(path, plain.read_bytes())
    num_read: Counter[str] = Counter()

    @contextmanager
    def count_lines(path: Path, **options: Any) -> Iterator[Any]:
        with open_text(path, **options) as file:
            yield Counted(file, num_read)

    for module in (files, delimited):
        monkeypatch.setattr(module, "open_text", count_lines)
    assert read(make_source(path=str(path))) == (10, NUM_ROWS)
    once = NUM_ROWS + 1
    assert num_read["lines"] < (2 if "tsv" in ending else 1) * once + 20


class Counted:
    """A file that counts the lines that are read of it."""

    def __init__(self, file: Any, num_read: Counter[str]) -> None:
        self._file, self._num_read = file, num_read

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self._num_read["lines"] += 1
            yield line


def write(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_a_tsv_file_that_was_written_anew_is_looked_at_anew(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    for text, asked in (('q\tid\n"a\tb"\t1\n', "a\tb"), ('q\tid\n5" pipe\t1\n', '5" pipe'), ('q\tid\n"é"\t1\n', "é")):
        path.write_text(text, "utf-8")
        (frame,) = read_source(make_source(path=str(path)))
        assert frame["messages"].to_list()[0][0]["content"] == asked


def test_a_dataset_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"id": list(range(100)), "q": [f"为什么 {at}?" for at in range(100)]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    load, loaded = datasets.load_from_disk, list[str]()

    def note(name: str) -> Any:
        loaded.append(name)
        return load(name)

    monkeypatch.setattr(datasets, "load_from_disk", note)
    assert read(make_source(dataset=str(tmp_path / "saved"), language="zh")) == (10, 100)
    assert len(loaded) == 1


def test_the_id_of_a_prompt_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,q\n" + "".join(f"{at},Why {at}?\n" for at in range(30)))
    made: Counter[str] = Counter()
    make = sources.make_prompt_id
    monkeypatch.setattr(sources, "make_prompt_id", lambda *of: made.update(["id"]) or make(*of))
    assert read(make_source(path=str(path), language="en")) == (10, 30)
    assert made["id"] == 30
