"""How fast is preference training, and in how much memory? The trainer beside TRL's DPOTrainer, on one CPU thread.

    python3.11 -m venv TRL && TRL/bin/pip install torch==2.13.0 transformers==5.19.0 trl==1.16.0
    python -m tests.benchmarks.training --trl TRL/bin/python --shape 32k
    python -m tests.benchmarks.training --trl TRL/bin/python --shape 256k --pairs 16
    python -m tests.benchmarks.training --trl TRL/bin/python --agree     # the same losses and margins over ten steps

The two train the same random Llama on the same pairs of random words in turns, in processes of their own; the medians
are shown. What is counted is processor time (user and system) from a loaded TRL model, and for the trainer from
nothing, to the trained weights, the reference's log-probabilities included on both sides; ours saves the model too.
Tokens are those of prompt + chosen and prompt + rejected, without padding, on both sides. Memory is the peak of the
process less float32 parameters, gradients and the two states of Adam, libraries included, in two measures: resident
(``ru_maxrss``, which counts pages of shared libraries too) and private (``RssAnon``, read by this process every 10 ms).
``libraries`` is what a side took once it had imported all that it works with, before any model; each side's clock
starts there. TRL runs at its best: reference precomputed, no gradient checkpointing, one pair a micro-batch;
``--defaults`` shows its own. The trainer's micro-batches have ``--tokens``, about as many.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

SHAPES = {"32k": (32_000, 4), "256k": (256_000, 2), "tiny": (2_000, 2)}
"""Size of the vocabulary and number of layers; the hidden size is 256 everywhere."""

Dtype = Literal["bfloat16", "float32"]

MEAN_PROMPT, MEAN_COMPLETION = 123, 104
BATCH_ROWS = 8


def make_model(folder: Path, vocabulary: int, num_layers: int) -> None:
    """Write a random Llama with a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        initializer_range=0.05,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = {"<pad>": 0, "<eos>": 1} | {f"w{number}": number for number in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>").save_pretrained(folder)


def make_rows(path: Path, num_pairs: int, vocabulary: int) -> int:
    """Write pairs of random words, with lengths as those of chat data vary; return the number of tokens."""
    rng = np.random.default_rng(0)

    def draw(mean: float, spread: float) -> list[str]:
        length = int(np.clip(rng.lognormal(np.log(mean) - spread**2 / 2, spread), 4, 1000))
        return [f"w{number}" for number in rng.integers(2, vocabulary, length)]

    num_tokens = 0
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_pairs):
            prompt, answers = draw(MEAN_PROMPT, 0.6), [draw(MEAN_COMPLETION, 0.7) for _ in range(2)]
            num_tokens += sum(len(prompt) + len(answer) + 1 for answer in answers)
            chosen, rejected = (" " + " ".join(answer) for answer in answers)
            row = {"id": str(number), "prompt": " ".join(prompt), "chosen": chosen, "rejected": rejected}
            file.write(json.dumps(row) + "\n")
    return num_tokens


def train_ours(model: str, rows: str, output: str, dtype: Dtype, rate: float, tokens: int) -> None:
    """Train with this project's trainer, in this process, and print what it took."""
    import resource

    import torch
    import transformers  # noqa: F401

    import factory.inputs.files  # what a run imports when it comes to it; TRL's clock starts after its imports, too
    import factory.training.run.loop  # noqa: F401
    from factory.training.curves import read_metrics
    from factory.training.trainer import train
    from schemas.recipe.training import TrainRun, TrainSettings

    run = TrainRun(
        device="cpu",
        micro_batch_tokens=tokens,
        checkpoint_every=None,
        tensorboard=False,
        plot=False,
        cache=f"{output}/cache",
    )
    settings = TrainSettings(
        model=model,
        data=rows,
        objective="dpo",
        beta=0.1,
        batch_rows=BATCH_ROWS,
        max_length=4096,
        learning_rate=rate,
        schedule="constant",
        warmup_steps=0,
        dtype=dtype,
        run=run,
    )
    torch.set_num_threads(1)
    library_bytes = resident_bytes()
    started, wall = time.process_time(), time.monotonic()
    train(settings, Path(output) / "run", quiet=True)
    seconds, wall = time.process_time() - started, time.monotonic() - wall
    lines = [line for line in read_metrics(Path(output) / "run") if line["split"] == "train"]
    figures = {
        "cpu_seconds": seconds,
        "wall_seconds": wall,
        "library_bytes": library_bytes,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "losses": [line["loss"] for line in lines],
        "margins": [line["margin"] for line in lines],
    }
    print(json.dumps(figures))


def resident_bytes() -> int:
    """Return the memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_side(command: list[str]) -> dict[str, Any]:
    """Run one side in a process of its own; return what its last line says, and the peak of its private memory."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=errors)
        peak = 0
        while process.poll() is None:
            peak = max(peak, private_bytes(process.pid))
            time.sleep(0.01)
        said.seek(0)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.read()[-3000:]}")
        figures: dict[str, Any] = json.loads(said.read().strip().splitlines()[-1])
    return figures | {"private_bytes": peak}


def private_bytes(process: int) -> int:
    """Return the memory that a process has to itself, which is none once it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def in_training_order(rows: Path, ordered: Path) -> None:
    """Write rows in the order in which the trainer takes them, for a trainer that reads them one after another."""
    from factory.training.data.batches import plan_steps
    from schemas.recipe.training import TrainSettings

    lines = rows.read_text(encoding="utf-8").splitlines()
    settings = TrainSettings(model="m", data="d", objective="dpo", batch_rows=BATCH_ROWS)
    steps = plan_steps([1] * len(lines), settings)
    ordered.write_text("".join(lines[row] + "\n" for step in steps for row in step), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="The trainer beside TRL's DPOTrainer.")
    parser.add_argument("--trl", help="python of an environment with TRL; none: this side alone")
    parser.add_argument("--shape", choices=SHAPES, default="32k")
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--defaults", action="store_true", help="TRL at its own defaults")
    parser.add_argument("--tokens", type=int, default=512, help="micro_batch_tokens of this side")
    parser.add_argument("--agree", action="store_true", help="compare losses and margins over ten steps")
    parser.add_argument("--side", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        model, rows, output, dtype, rate = arguments.side
        train_ours(model, rows, output, dtype, float(rate), arguments.tokens)
        return
    shape, num_pairs = ("tiny", 10 * BATCH_ROWS) if arguments.agree else (arguments.shape, arguments.pairs)
    rate = "1e-3" if arguments.agree else "1e-5"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vocabulary, num_layers = SHAPES[shape]
        make_model(folder / "model", vocabulary, num_layers)
        num_tokens = make_rows(folder / "rows.jsonl", num_pairs, vocabulary)
        in_training_order(folder / "rows.jsonl", folder / "ordered.jsonl")
        print(f"{shape}: {num_pairs} pairs, {num_tokens} tokens, {num_tokens / 2 / num_pairs:.0f} a sequence")
        ours: list[dict[str, Any]] = []
        theirs: list[dict[str, Any]] = []
        for number in range(1 if arguments.agree else arguments.rounds):
            output = folder / f"ours-{number}"
            module = [sys.executable, "-m", "tests.benchmarks.training", "--tokens", str(arguments.tokens)]
            places = [str(folder / "model"), str(folder / "rows.jsonl"), str(output)]
            ours.append(run_side([*module, "--side", *places, arguments.dtype, rate]))
            if arguments.trl:
                script = Path(__file__).with_name("training_trl.py")
                command = [arguments.trl, str(script), places[0], str(folder / "ordered.jsonl"), f"{output}-trl"]
                command += ["--rate", rate, "--dtype", arguments.dtype, "--batch", str(BATCH_ROWS)]
                theirs.append(run_side([*command, "--defaults", "--micro", "8"] if arguments.defaults else command))
        if arguments.agree:
            compare(ours[0], theirs[0])
        else:
            show(ours, theirs, num_tokens, folder / "model")


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Print losses and margins of each step side by side, and the largest difference."""
    for name in ("losses", "margins"):
        gaps = [abs(a - b) for a, b in zip(ours[name], theirs[name], strict=True)]
        print(f"{name}: largest difference {max(gaps):.2e} over {len(gaps)} steps")
        for a, b in zip(ours[name], theirs[name], strict=True):
            print(f"  {a:.6f}  {b:.6f}")


def show(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], num_tokens: int, model: Path) -> None:
    """Print the medians of both sides and their ratio."""
    states = 4 * sum(file.stat().st_size for file in model.glob("*.safetensors"))
    medians = {}
    for name, found in (("ours", ours), ("TRL", theirs)):
        if not found:
            continue
        peak, private, libraries = (
            statistics.median(run[key] for run in found) for key in ("peak_bytes", "private_bytes", "library_bytes")
        )
        speed = statistics.median(num_tokens / run["cpu_seconds"] for run in found)
        medians[name] = speed, peak - states, private - states
        print(
            f"{name:5} {speed:8.0f} tokens per CPU second, peak {peak / 1e9:.2f} GB = {states / 1e9:.2f} GB of states "
            f"+ {libraries / 1e9:.2f} GB of libraries + {(peak - states - libraries) / 1e9:.2f} GB; "
            f"private {private / 1e9:.2f} GB"
        )
    if len(medians) == 2:
        speed, resident, private = (a / b for a, b in zip(medians["ours"], medians["TRL"], strict=True))
        print(
            f"ratio {speed:.2f} in speed; above states, libraries included: {resident:.3f} in resident memory, "
            f"{private:.3f} in private memory"
        )


if __name__ == "__main__":
    main()
