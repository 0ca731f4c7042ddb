"""Parents by hub id: fetched from a stand-in of the hub, then found in the cache when there is no hub."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file

from factory.merging.merge import merge
from schemas.recipe.merging import MergeSettings
from tests.factory.merging.conftest import draw_weights, read_weights, same, write_checkpoint
from tests.http_server import serve
from tests.waiting import GUARD_SECONDS

COMMIT = "1" * 40

MERGE = """
import sys
from pathlib import Path
from factory.merging.merge import merge
from schemas.errors import InputError
from schemas.recipe.merging import MergeSettings
for settings, output in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        merge(MergeSettings.model_validate_json(settings), Path(output))
    except InputError as error:
        print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """The few endpoints of the hub that a download of small files needs."""

    models: ClassVar[dict[str, Path]] = {}
    calls: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.calls.append(self.path)
        model = next((model for model in self.models if f"/{model}/" in f"{self.path}/"), None)
        _, _, file = self.path.partition(f"/resolve/{COMMIT}/")
        if model is None:
            self._answer(b'{"error": "Repository not found"}', 401, {"X-Error-Code": "RepoNotFound"})
        elif file:
            data = (self.models[model] / file).read_bytes()
            self._answer(data, 200, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT})
        else:
            files = sorted(self.models[model].iterdir())
            tree = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": COMMIT} for path in files]
            about = {"id": model, "sha": COMMIT, "siblings": [{"rfilename": path.name} for path in files]}
            self._answer(json.dumps(tree if "/tree/" in self.path else about).encode(), 200, {})

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.calls.clear()
    with serve(Hub) as address:
        yield address


def run(cache: Path, endpoint: str, *merges: tuple[dict[str, Any], Path], is_offline: bool) -> str:
    """Merge in a process of its own, since the client reads its settings when it is imported."""
    env = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MERGE, *(str(part) for one in merges for part in (json.dumps(one[0]), one[1]))],
        cwd=Path(__file__).parents[3],
        env=env | {"HF_HUB_OFFLINE": str(int(is_offline)), "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_parents_on_the_hub(hub: str, tmp_path: Path) -> None:
    """A base, a model of a named revision, and an adapter with its model: the merge is that of the same folders."""
    folders = [write_checkpoint(tmp_path / name, draw_weights(seed), num_shards=2) for seed, name in enumerate("abc")]
    (folders[0] / "pytorch_model.bin").write_bytes(b"the same weights once more")
    folders.append(tmp_path / "lora")
    folders[3].mkdir()
    (folders[3] / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 4, "r": 2}')
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{module}.lora_A.weight": torch.randn(2, 24), f"{module}.lora_B.weight": torch.randn(24, 2)}
    save_file(factors, folders[3] / "adapter_model.safetensors")
    Hub.models = {f"team/{folder.name}": folder for folder in folders}

    def settings(prefix: str) -> dict[str, Any]:
        models = [{"model": f"{prefix}b"}, {"model": f"{prefix}c", "adapter": f"{prefix}lora"}]
        return {"method": "ties", "base": f"{prefix}a", "models": models}

    merge(MergeSettings.model_validate(settings(f"{tmp_path}/")), tmp_path / "local")
    by_revision = settings("team/")
    by_revision["models"][0]["revision"] = "v1"
    unknown = {"models": [{"model": "team/none"}]}
    said = run(tmp_path / "cache", hub, (by_revision, tmp_path / "first"), (unknown, tmp_path / "x"), is_offline=False)
    assert said.startswith("'team/none' is neither a local folder nor a model that the hub provides: 401")
    assert said.count("\n") == 1
    assert "/api/models/team/b/revision/v1" in Hub.calls
    assert not any("pytorch_model.bin" in call for call in Hub.calls)
    num_calls = len(Hub.calls)
    said = run(tmp_path / "cache", hub, (by_revision, tmp_path / "again"), (unknown, tmp_path / "x"), is_offline=True)
    assert said.startswith("'team/none' is neither a local folder nor a model that the hub provides: ")
    assert said.count("\n") == 1
    assert len(Hub.calls) == num_calls
    assert not (tmp_path / "x").exists()
    for name in ("first", "again"):
        assert same(read_weights(tmp_path / name), read_weights(tmp_path / "local"))
        assert (tmp_path / name / "tokenizer.json").read_bytes() == (folders[1] / "tokenizer.json").read_bytes()
