import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest

from schemas.errors import WarehouseError
from tests.http_server import serve
from tests.waiting import GUARD_SECONDS
from tests.warehouse.small_build import CONFIG_ID, fill_lake, make_recipe
from warehouse.export.export import export_build
from warehouse.export.hub import push_export
from warehouse.lake.lake import Lake

TOKEN = "hf_" + "s" * 34
OLD_SHARD = "sft/train-00000-of-00009.parquet"


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    recipe = make_recipe(folder)
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe, num_roots=3)
        return export_build(lake, CONFIG_ID, recipe, folder / "exports").path


class Hub(BaseHTTPRequestHandler):
    """The few endpoints of the hub that an upload of small files needs."""

    calls: ClassVar[list[tuple[str, str, bytes]]] = []
    refuse: ClassVar[bool] = False

    def do_GET(self) -> None:
        old = [{"type": "file", "path": path, "size": 1, "oid": "0" * 40} for path in (OLD_SHARD, "LICENSE")]
        self._answer(old if "/tree/" in self.path else {"id": "team/small", "sha": "1" * 40})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.calls.append((self.path, self.headers["Authorization"], body))
        host = f"http://{self.headers['Host']}"
        if self.refuse:
            self._answer({"error": "You don't have the rights"}, status=403)
        elif self.path.endswith("/repos/create"):
            self._answer({"url": f"{host}/datasets/team/small"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}
            )
        else:
            url = f"{host}/datasets/team/small/commit/{'2' * 40}"
            self._answer({"commitUrl": url, "commitOid": "2" * 40, "pullRequestUrl": None})

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self, data: Any, status: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.calls.clear()
    Hub.refuse = False
    with serve(Hub) as address:
        yield address


def push(version: Path, hub: str) -> subprocess.CompletedProcess[str]:
    """Push from a process of its own, since the client reads its settings when it is imported."""
    code = (
        "import sys; from pathlib import Path; from warehouse.export.hub import push_export\n"
        "try: print(push_export(Path(sys.argv[1]), 'team/small'))\n"
        "except Exception as error: sys.exit(f'{type(error).__name__}: {error}')"
    )
    env = {**os.environ, "HF_ENDPOINT": hub, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, str(version)],
        cwd=Path(__file__).parents[3],
        env=env,
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
    )


def test_a_version_reaches_the_hub_whole(version: Path, hub: str) -> None:
    done = push(version, hub)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{hub}/datasets/team/small/tree/{version.name}"]
    assert {token for _, token, _ in Hub.calls} == {f"Bearer {TOKEN}"}
    bodies = {path: body for path, _, body in Hub.calls}
    assert json.loads(bodies["/api/repos/create"])["visibility"] == "private"
    lines = [json.loads(line) for line in bodies["/api/datasets/team/small/commit/main"].splitlines()]
    sent = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
    }
    assert sent == {
        path.relative_to(version).as_posix(): path.read_bytes() for path in version.rglob("*") if path.is_file()
    }
    assert [line["value"]["path"] for line in lines if line["key"] == "deletedFile"] == [OLD_SHARD]
    assert f"/api/datasets/team/small/tag/{'2' * 40}" in bodies


def test_a_refusal_is_one_sentence_without_the_token(version: Path, hub: str) -> None:
    Hub.refuse = True
    done = push(version, hub)
    assert done.returncode == 1
    assert "WarehouseError: pushing" in done.stderr
    assert "403" in done.stderr
    assert TOKEN not in done.stderr + done.stdout
    assert len(done.stderr.strip().splitlines()) == 1


def test_no_token_is_said(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(WarehouseError, match="team/small needs a token with write access in HF_TOKEN"):
        push_export(version, "team/small")


def test_a_damaged_version_is_not_pushed(version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    copy = tmp_path / version.name
    for path in version.rglob("*.*"):
        if path.is_file():
            (copy / path.relative_to(version)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(version)).write_bytes(path.read_bytes()[:-1] + b"\0" * path.name.endswith("t"))
    (copy / "manifest.json").write_bytes((version / "manifest.json").read_bytes())
    with pytest.raises(WarehouseError, match="does not agree with its manifest"):
        push_export(copy, "team/small")
