"""Files appear under their names when they are whole."""

from pathlib import Path

import pytest

from schemas.disk import whole_file, write_text


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
