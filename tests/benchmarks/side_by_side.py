"""What the engine benchmarks share: a model made on the spot, bare vLLM in a process of its own, alternating pairs."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

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


def serve_bare(run: Callable[[list[str]], int]) -> None:
    """Answer rounds until the input ends."""
    for line in sys.stdin:
        print("units", run(json.loads(line)), flush=True)


def compare(name: str, unit: str, bare: Callable[[int], int], ours: Callable[[int], int], num_pairs: int) -> float:
    """Time pairs in alternating order, after one round each to warm up; print a table and return the median ratio."""
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    sides = {"bare": bare, "ours": ours}
    for number in range(num_pairs + 1):
        for side in ("bare", "ours") if number % 2 else ("ours", "bare"):
            start = time.perf_counter()
            rate = sides[side](number) / (time.perf_counter() - start)
            if number:
                rates[side].append(rate)
    ratios = [ours_rate / bare_rate for ours_rate, bare_rate in zip(rates["ours"], rates["bare"], strict=True)]
    print(f"\n{name}: {num_pairs} alternating pairs, {unit}/s")
    print("pair      bare      ours   ours/bare")
    for number, ratio in enumerate(ratios, start=1):
        print(f"{number:4}{rates['bare'][number - 1]:10.1f}{rates['ours'][number - 1]:10.1f}{ratio:12.3f}")
    medians = [statistics.median(values) for values in (rates["bare"], rates["ours"], ratios)]
    print(f" med{medians[0]:10.1f}{medians[1]:10.1f}{medians[2]:12.3f}")
    return medians[2]


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
    model.to(torch.bfloat16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
