"""What the engine benchmarks share: a model made on the spot, bare vLLM in a process of its own, alternating pairs."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from factory.engines.base import Engine
from factory.engines.supervision.supervisor import ChildEngine
from factory.stages.outputs import Provenance, Stage, make_frame
from flows.lanes.committer import Committer
from schemas.recipe.settings import RunSettings, WarehouseSettings
from warehouse.lake.lake import Lake

ENVIRONMENT = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
CPU_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "2"}


def set_environment() -> None:
    """Give both sides one environment; on a GPU vLLM's own defaults stand."""
    from vllm.platforms import current_platform

    os.environ.update(ENVIRONMENT | (CPU_ENVIRONMENT if current_platform.is_cpu() else {}))


class Bare:
    """Bare vLLM: ``script --bare``, which reads one line of JSON per round and prints the units it made."""

    def __init__(self, script: str, settings: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script, "--bare", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def run(self, texts: list[str]) -> int:
        """Return how many units (tokens, rewards) a round made."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(texts), file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("units "):
                return int(line.split()[1])
        raise SystemExit("bare vLLM has died")


def engine_pid(engine: Engine) -> int:
    """Return the id of the engine's child process."""
    assert isinstance(engine, ChildEngine)
    assert engine.child is not None
    return engine.child.pid


def serve_bare(run: Callable[[list[str]], int]) -> None:
    """Answer rounds until the input ends."""
    for line in sys.stdin:
        print("units", run(json.loads(line)), flush=True)


LANE = Provenance("settings", "benchmark", "fingerprint")
"""What the rows that our side commits are made by."""


def open_lake(folder: Path, rounds: dict[int, list[list[dict[str, str]]]]) -> Lake:
    """Make a warehouse that holds the conversations of every round, under the round's number as their source."""
    lake = Lake.open(WarehouseSettings(catalog=str(folder / "catalog.sqlite"), data=str(folder / "data")))
    for number, conversations in rounds.items():
        shared = {"language": "en", "source": str(number), "split": "train"}
        rows = [
            shared | {"prompt_id": (name := f"{number}-{at}"), "root_id": name, "messages": messages}
            for at, messages in enumerate(conversations)
        ]
        lake.append("prompts", make_frame("prompts", rows))
    return lake


def run_lane(lake: Lake, engine: Engine, table: str, stage: Stage, pending: str) -> list[Any]:
    """Send what a SELECT wants and commit what comes back, as a build's lane does; return the replies."""
    settings = RunSettings()
    replies = []
    with (
        lake.spool(pending) as spool,
        Committer(
            lake,
            table,
            stage,
            rows=settings.commit_rows,
            seconds=settings.commit_seconds,
            on_commit=lambda landed: None,
        ) as committer,
    ):
        for reply in engine.stream(stage.requests(spool.frames())):
            committer.add(reply)
            replies.append(reply)
    return replies


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: a round by its number, which returns the units made, and the root of its processes."""

    run: Callable[[int], int]
    process_id: Callable[[], int]

    def measure(self, number: int) -> tuple[float, float]:
        """Return units per second of a round, by the clock and by processor time."""
        started, cpu_started = time.perf_counter(), self._cpu_seconds()
        num_units = self.run(number)
        return num_units / (time.perf_counter() - started), num_units / (self._cpu_seconds() - cpu_started)

    def _cpu_seconds(self) -> float:
        """Return the processor time of the side's processes and of this one, which feeds both."""
        root = psutil.Process(self.process_id())
        processes = [root, *root.children(recursive=True)]
        return time.process_time() + sum(sum(process.cpu_times()[:2]) for process in processes)


def compare(name: str, unit: str, bare: Side, ours: Side, num_pairs: int) -> float:
    """Time pairs in alternating order, after a round each to warm up; print a table, return the median ratio.

    The ratio by processor time is the steadier one on a machine that does other work; idle gaps show in the other.
    """
    bare.run(-1)
    ours.run(-1)
    rows = []
    for number in range(num_pairs):
        sides = (bare, ours) if number % 2 else (ours, bare)
        rates = {id(side): side.measure(number) for side in sides}
        (bare_rate, bare_cpu), (ours_rate, ours_cpu) = rates[id(bare)], rates[id(ours)]
        rows.append((bare_rate, ours_rate, ours_rate / bare_rate, ours_cpu / bare_cpu))
    print(f"\n{name}: {num_pairs} alternating pairs, {unit} per second")
    print("  pair      bare      ours ours/bare by CPU time")
    for label, row in [*enumerate(rows, start=1), ("median", tuple(map(statistics.median, zip(*rows, strict=True))))]:
        print(f"{label:>6}{row[0]:10.1f}{row[1]:10.1f}{row[2]:10.3f}{row[3]:12.3f}")
    return statistics.median(row[2] for row in rows)


def make_model(kind: str, hidden_size: int, num_layers: int) -> Path:
    """Save a random Llama (``generator`` or ``reward``) with a byte-level tokenizer in a temporary folder."""
    import torch
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification

    from tests.factory.engines.conftest import llama_config, make_tokenizer

    folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
    torch.manual_seed(0)
    config = llama_config(
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        max_position_embeddings=2048,
        initializer_range=0.02,
        num_labels=1,
    )
    model = LlamaForCausalLM(config) if kind == "generator" else LlamaForSequenceClassification(config)
    model.bfloat16().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
