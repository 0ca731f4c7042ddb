"""Files and folders appear under their names when they are whole."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.disk import whole_file, whole_folder, write_text
from schemas.errors import HeldError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["short.json", "言" * 80 + ".json", "ق" * 120 + ".json", "a" * 255])
def test_a_file_may_have_any_name_that_the_disk_takes(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "قطة\r\n言\n")
    assert (tmp_path / name).read_bytes() == "قطة\r\n言\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_text(path, "old")

    def fail() -> None:
        with whole_file(path) as file:
            file.write(b"new")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        fail()
    assert {found.name: found.read_text() for found in tmp_path.iterdir()} == {path.name: "old"}


def list_files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def write(final: Path, text: str, **options: bool) -> None:
    with whole_folder(final, **options) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "file").write_text(text)


def test_a_folder_appears_when_it_is_whole_and_one_that_is_there_is_replaced_if_asked(tmp_path: Path) -> None:
    final = tmp_path / "above" / "model"
    with whole_folder(final) as folder:
        (folder / "other").write_text("old")
        assert not final.exists()
    with pytest.raises(OSError, match="not empty"):
        write(final, "new")
    assert list_files(tmp_path) == {"above/model/other": "old"}
    write(final, "new", replaces=True)
    assert list_files(tmp_path) == {"above/model/part/file": "new"}


KILLED = """
import os, signal, sys
from pathlib import Path
from schemas.disk import whole_folder
with whole_folder(Path(sys.argv[1])) as folder:
    (folder / "part").mkdir()
    (folder / "part" / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_has_left_of_a_folder_is_cleared_away(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "model")], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished-model"]
    write(tmp_path / "model", "whole")
    assert list_files(tmp_path) == {"model/part/file": "whole"}


def test_one_at_a_time_writes_a_folder(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "model") as folder:
        (folder / "file").write_text("first")
        with pytest.raises(HeldError, match=r"another process is writing '.*/model'"):
            write(tmp_path / "model", "second")
    assert list_files(tmp_path) == {"model/file": "first"}
