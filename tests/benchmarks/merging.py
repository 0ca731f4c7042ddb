"""The merger beside mergekit on sharded bf16 checkpoints: ``python -m tests.benchmarks.merging --mergekit PROGRAM``.

Three random Llamas of about 1.2 GB and a base are made in ``--folder`` (5 GB, and 2.4 GB for the results; a folder in
memory keeps the disk out of it). ``PROGRAM`` is ``mergekit-yaml`` in an environment of its own. Each row is one fresh
process: wall and processor seconds, start-up included, and the peak of its private memory. The last columns compare the
results. ``copy`` is the yardstick of linear: reading all inputs and writing one output, without start-up.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from factory.merging.masks import draw_mask
from factory.merging.methods import num_kept

HIDDEN, INNER, LAYERS, VOCABULARY = 2048, 5632, 9, 32000
SHARD_BYTES = 300_000_000
WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}
METHODS = ("linear", "slerp", "ties", "dare_linear", "dare_ties")

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}

OURS = """
import json, sys, time
from pathlib import Path
from factory.loading import loading
with loading():
    from factory.merging.merge import merge
from schemas.recipe.merging import MergeSettings
settings = MergeSettings.model_validate_json(sys.argv[1])
started = time.perf_counter()
merge(settings, Path(sys.argv[2]))
print(json.dumps(time.perf_counter() - started))
"""

SPARSIFY = """
import sys
import torch
from mergekit.sparsify import RescaleNorm, bernoulli
from safetensors.torch import load_file, save_file
given = load_file(sys.argv[1])
torch.bernoulli = lambda probabilities: given["mask"].to(probabilities.dtype)
save_file({"kept": bernoulli(given["delta"], 0.5, RescaleNorm.l1)}, sys.argv[2])
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What one process took."""

    wall: float
    cpu: float
    private_mb: float
    output: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mergekit", help="the program mergekit-yaml; without it only ours is measured")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/merging"))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--rescale", choices=("density", "l1"), default="l1", help="ours, for DARE; mergekit's is l1")
    parser.add_argument("--equality", action="store_true", help="compare results, mergekit working in float32")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints for the next call")
    arguments = parser.parse_args()
    if not (arguments.folder / "c").exists():
        make_checkpoints(arguments.folder)
    print(f"copy: {copy(arguments.folder):.2f} s", flush=True)
    for method in arguments.methods:
        if arguments.equality and method.startswith("dare"):
            compare_sparsifier(arguments.folder, arguments.mergekit)
        elif arguments.equality:
            compare(method, arguments.folder, arguments.mergekit)
        else:
            measure(method, arguments.folder, arguments.mergekit, arguments.rescale)
    if not arguments.keep:
        shutil.rmtree(arguments.folder)


def make_checkpoints(folder: Path) -> None:
    """Write a base and three fine-tunes of it: the base plus noise of a tenth of its size."""
    torch.manual_seed(0)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in shapes():
        if sum(2 * torch.Size(each).numel() for each in shards[-1].values()) > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map |= dict.fromkeys(shard, file)
        base = {name: torch.randn(shape) * 0.02 for name, shape in shard.items()}
        for model in ("base", *WEIGHTS):
            (folder / model).mkdir(parents=True, exist_ok=True)
            noise = 0.0 if model == "base" else 0.002
            tensors = {name: (value + noise * torch.randn(value.shape)).bfloat16() for name, value in base.items()}
            save_file(tensors, folder / model / file, metadata={"format": "pt"})
    for model in ("base", *WEIGHTS):
        (folder / model / "config.json").write_text(json.dumps(CONFIG))
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / model / "model.safetensors.index.json").write_text(json.dumps(index))


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for side in "qkvo":
            yield f"{prefix}.self_attn.{side}_proj.weight", (HIDDEN, HIDDEN)
        for name, shape in (("gate", (INNER, HIDDEN)), ("up", (INNER, HIDDEN)), ("down", (HIDDEN, INNER))):
            yield f"{prefix}.mlp.{name}_proj.weight", shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}.{name}.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)


def copy(folder: Path) -> float:
    """Return the seconds that reading the three inputs and writing as much as one takes, in pieces of a megabyte."""
    buffer, target = bytearray(1 << 20), folder / "copied"
    started = time.perf_counter()
    with target.open("wb", buffering=0) as out:
        for model in WEIGHTS:
            for path in sorted((folder / model).glob("*.safetensors")):
                with path.open("rb", buffering=0) as file:
                    while count := file.readinto(buffer):
                        if model == "a":
                            out.write(memoryview(buffer)[:count])
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def measure(method: str, folder: Path, mergekit: str | None, rescale: str) -> None:
    """Print what each tool takes for a method, and by how much they differ."""
    ours = run_ours(method, folder, folder / "ours", rescale)
    inner = float(ours.output.splitlines()[-1])
    print(f"{method:<12} ours     {show(ours)}  without start-up {inner:5.2f} s", flush=True)
    if mergekit is not None:
        theirs = run_mergekit(method, folder, folder / "theirs", mergekit, dtype="bfloat16")
        print(f"{method:<12} mergekit {show(theirs)}", flush=True)
        ratios = (theirs.wall / ours.wall, theirs.cpu / ours.cpu, theirs.private_mb / ours.private_mb)
        print(
            f"{method:<12} ratio    wall {ratios[0]:6.1f}    cpu {ratios[1]:6.1f}    private {ratios[2]:6.1f}",
            flush=True,
        )
    for name in ("ours", "theirs"):
        shutil.rmtree(folder / name, ignore_errors=True)


def show(run: Run) -> str:
    return f"wall {run.wall:6.2f} s  cpu {run.cpu:6.2f} s  private {run.private_mb:6.0f} MB"


def compare(method: str, folder: Path, mergekit: str) -> None:
    """Print how many elements differ, and by how many units in the last place of bf16, mergekit working in float32.

    The unit is that of the largest input of an element: where inputs cancel, what is left has no unit of its own. TIES:
    counted apart are the elements where a task vector lies at its threshold; ours keeps all of those, mergekit some.
    """
    run_ours(method, folder, folder / "ours")
    run_mergekit(method, folder, folder / "theirs", mergekit, dtype="float32")
    parents = {"linear": ["a", "b", "c"], "slerp": ["a", "b"]}.get(method, ["a", "b", "c", "base"])
    num_elements = num_other = num_far = num_at_threshold = num_far_elsewhere = 0
    for name, _ in shapes():
        ours, theirs, *inputs = (read(folder / model, name).float() for model in ("ours", "theirs", *parents))
        scale = torch.stack([ours.abs(), theirs.abs(), *(each.abs() for each in inputs)]).amax(0)
        unit = torch.exp2(torch.floor(torch.log2(scale.clamp_min(1e-30))) - 7)
        distance = (ours - theirs).abs() / unit
        num_elements += distance.numel()
        num_other += int((distance > 0).sum())
        num_far += int((distance > 1).sum())
        if method == "ties":
            at_threshold = find_ties(inputs)
            num_at_threshold += int(at_threshold.sum())
            num_far_elsewhere += int(((distance > 1) & ~at_threshold).sum())
    print(
        f"{method:<12} differ {num_other / num_elements:.4%}, by more than one unit {num_far / num_elements:.4%}",
        flush=True,
    )
    if method == "ties":
        print(
            f"{method:<12} at a threshold {num_at_threshold / num_elements:.4%}; elsewhere, by more than one unit "
            f"{num_far_elsewhere} of {num_elements - num_at_threshold}",
            flush=True,
        )
    for model in ("ours", "theirs"):
        shutil.rmtree(folder / model)


def find_ties(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return where the difference of any model from the base, which comes last, is as large as its smallest that is kept."""
    *models, base = inputs
    at_threshold = torch.zeros_like(base, dtype=torch.bool)
    for model in models:
        magnitudes = (model - base).abs()
        place = magnitudes.numel() - num_kept(0.5, magnitudes.numel())
        at_threshold |= magnitudes == float(np.partition(magnitudes.flatten().numpy(), place)[place])
    return at_threshold


def compare_sparsifier(folder: Path, mergekit: str) -> None:
    """Print what differs between our merge of one model by DARE and mergekit's sparsifier under our mask.

    The two draw other random numbers, so that whole merges cannot be compared.
    """
    models = [{"model": str(folder / "a"), "weight": 1.0}]
    settings = {"method": "dare_linear", "models": models, "base": str(folder / "base"), "rescale": "l1"}
    watch([sys.executable, "-c", OURS, json.dumps(settings), str(folder / "ours")])
    python = str(Path(mergekit).with_name("python"))
    for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"):
        ours, base, model = (read(folder / each, name).float() for each in ("ours", "base", "a"))
        delta = (model - base).flatten()
        mask = draw_mask(0, "0", name, 0.5, 0, delta.numel())
        save_file({"delta": delta, "mask": mask}, folder / "given.safetensors")
        watch([python, "-c", SPARSIFY, str(folder / "given.safetensors"), str(folder / "kept.safetensors")])
        kept = load_file(folder / "kept.safetensors")["kept"]
        theirs = (base + kept.view_as(base)).bfloat16().float()
        unit = torch.exp2(torch.floor(torch.log2(torch.maximum(ours.abs(), theirs.abs()).clamp_min(1e-30))) - 7)
        distance = (ours - theirs).abs() / unit
        print(f"sparsifier   {name}: differ {(distance > 0).double().mean():.4%}, at most {distance.max():g} units")
    shutil.rmtree(folder / "ours")


def read(folder: Path, name: str) -> torch.Tensor:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())["weight_map"] if path.exists() else {}
    with safe_open(folder / index.get(name, "model.safetensors"), "pt") as file:
        return file.get_tensor(name)


def run_ours(method: str, folder: Path, output: Path, rescale: str = "l1") -> Run:
    names = ["a", "b"] if method == "slerp" else list(WEIGHTS)
    models = [{"model": str(folder / name), "weight": WEIGHTS[name] if method == "linear" else 1.0} for name in names]
    settings: dict[str, object] = {"method": method, "models": models}
    if method not in {"linear", "slerp"}:
        settings |= {"base": str(folder / "base"), "density": 0.5, "rescale": rescale}
    return watch([sys.executable, "-c", OURS, json.dumps(settings), str(output)])


def run_mergekit(method: str, folder: Path, output: Path, program: str, *, dtype: str) -> Run:
    names = ["b"] if method == "slerp" else list(WEIGHTS)
    weights = [WEIGHTS[name] if method == "linear" else 1.0 for name in names]
    density = {} if method == "linear" else {"density": 0.5}
    models = [
        {"model": str(folder / name), "parameters": {"weight": weight, **density}}
        for name, weight in zip(names, weights, strict=True)
    ]
    config: dict[str, object] = {"merge_method": method, "models": models, "dtype": dtype, "out_dtype": "bfloat16"}
    if method == "slerp":
        config |= {"models": [{"model": str(folder / "b")}], "base_model": str(folder / "a"), "parameters": {"t": 0.5}}
    elif method != "linear":
        config |= {"base_model": str(folder / "base"), "parameters": {"normalize": method == "ties"}}
    path = folder / "mergekit.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return watch([program, str(path), str(output)])


def watch(command: list[str]) -> Run:
    """Run a process to its end, looking at its private memory twenty times a second."""
    before, started, peak = os.times(), time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        lines = status.read_text().splitlines()
        peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        time.sleep(0.05)
    wall, after = time.perf_counter() - started, os.times()
    output, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{command[0]} failed: {errors[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(wall, cpu, peak / 1024, output)


if __name__ == "__main__":
    main()
