"""A run is watched once it has work for a model: who watches then sees all of it, and a run without work starts nobody."""

import contextlib
import threading
from collections.abc import Iterator

import pytest

from flows.lanes.side_by_side import Unwatched
from flows.orchestration.watching import OnceAtWork
from flows.prefect_settings import has_settings


class Watcher(Unwatched):
    """Takes down what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.told: list[str] = []

    @contextlib.contextmanager
    def open(self) -> Iterator["Watcher"]:
        self.told.append("opened")
        try:
            yield self
        except BaseException as error:
            self.told.append(f"closed by {error}")
            raise
        self.told.append("closed")

    @contextlib.contextmanager
    def piece(self, name):
        self.told.append(f"{name} begins")
        try:
            yield lambda percent, line: self.told.append(f"{name} {percent:.0f}% {line}")
        except BaseException as error:
            self.told.append(f"{name} fails: {error}")
            raise
        self.told.append(f"{name} ends")

    def table(self, key, markdown):
        self.told.append(f"{key} {markdown}")


def test_who_watches_late_is_told_what_has_been():
    watcher = Watcher()
    with OnceAtWork(watcher.open, watcher) as watched:
        with watched.piece("read") as tell:
            tell(50, "unseen")
        with watched.piece("sample") as tell:
            assert watcher.told == []
            for thread in [threading.Thread(target=watched.begin) for _ in range(4)]:
                thread.start()
                thread.join()
            tell(10, "rows")
        with watched.piece("score"):
            pass
        watched.table("counts", "| 1 |")
    assert watcher.told == [
        "opened",
        *("read begins", "read ends"),
        *("sample begins", "sample 10% rows", "sample ends"),
        *("score begins", "score ends"),
        "counts | 1 |",
        "closed",
    ]


def test_a_run_without_work_is_shown_to_nobody():
    watcher = Watcher()
    with OnceAtWork(watcher.open, watcher) as watched:
        with watched.piece("read"):
            pass
        watched.table("counts", "| 0 |")
    assert watcher.told == []


def test_an_error_is_seen_by_who_watches():
    watcher = Watcher()

    def fail() -> None:
        with OnceAtWork(watcher.open, watcher) as watched, watched.piece("sample"):
            watched.begin()
            raise ValueError("no engine")

    with pytest.raises(ValueError, match="no engine"):
        fail()
    assert watcher.told == ["opened", "sample begins", "sample fails: no engine", "closed by no engine"]


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("PREFECT_API_URL", "PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    return tmp_path


def test_where_nothing_is_set_there_are_no_settings(nowhere):
    (nowhere / "pyproject.toml").write_text("[project]")
    assert not has_settings()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("home/profiles.toml", ""),
        ("prefect.toml", ""),
        (".env", "PREFECT_API_URL=http://127.0.0.1:9"),
        ("pyproject.toml", "[tool.prefect]"),
    ],
)
def test_files_that_may_name_a_server_are_seen(nowhere, file, text):
    (nowhere / "home").mkdir()
    (nowhere / file).write_text(text)
    assert has_settings()


def test_variables_that_may_name_a_server_are_seen(nowhere, monkeypatch):
    monkeypatch.setenv("PREFECT_PROFILE", "work")
    assert has_settings()
