"""Runs in several processes, and the final model in vLLM."""

import json
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from factory.microworld.world import MODELS
from factory.training.trainer import train
from schemas.training import Lora, TrainSettings
from tests.factory.training.conftest import pairs, save_model, turns, write_rows
from tests.factory.training.test_trainer import losses, settings

ROOT = Path(__file__).parents[3]


def torchrun(chosen: TrainSettings, output: Path, processes: int) -> None:
    file = output.with_suffix(".json")
    file.write_text(chosen.model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "factory.training", str(file), str(output), "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_give_the_losses_of_one_and_either_goes_on_from_the_other(tmp_path):
    """FSDP2 over gloo: a model with tied embeddings, micro-batches that do not come out even, and fewer rows than
    processes in the last step."""
    model = save_model(tmp_path / "gemma2", "gemma2")
    data = write_rows(tmp_path / "pairs.jsonl", pairs(33))
    held_out = write_rows(tmp_path / "eval.jsonl", pairs(7))
    run = {"micro_batch_tokens": 100, "checkpoint_every": 3}
    chosen = settings(model, data, nll_weight=0.2, max_steps=None, eval_data=str(held_out), run=run)
    torchrun(chosen, tmp_path / "two", 2)
    train(chosen, tmp_path / "one", quiet=True)
    assert len(losses(tmp_path / "one")) == 5
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert losses(tmp_path / "two", "eval") == pytest.approx(losses(tmp_path / "one", "eval"), abs=1e-5)

    resumed = tmp_path / "resumed"
    resumed.mkdir()
    (tmp_path / "two" / "checkpoints").rename(resumed / "checkpoints")
    for name in ("run.json", "metrics.jsonl"):
        (resumed / name).write_bytes((tmp_path / "two" / name).read_bytes())
    train(chosen, resumed, quiet=True)
    assert losses(resumed) == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def fork_two(chosen: TrainSettings, output: Path, port: int) -> None:
    """Train in two processes as torchrun would start them, but with everything imported already."""
    children = []
    for rank in range(2):
        child = os.fork()
        if not child:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            try:
                train(chosen, output, quiet=True)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]


@pytest.mark.parametrize(
    ("objective", "values", "gap"),
    [
        ("sft", {"batch_rows": None, "batch_tokens": 300, "run": {"activation_checkpointing": True}}, 1e-5),
        ("dpo", {"lora": Lora(rank=4)}, 1e-5),
        ("simpo", {"dtype": "bfloat16", "beta": 2.0}, 0.02),
    ],
)
def test_whatever_is_trained_two_processes_give_the_losses_of_one(llama, tmp_path, objective, values, gap):
    data = write_rows(tmp_path / "rows.jsonl", turns(33) if objective == "sft" else pairs(33))
    chosen = settings(llama, data, objective, **values)
    result = train(chosen, tmp_path / "one", quiet=True)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    fork_two(chosen, tmp_path / "two", port)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=gap)
    weights = [load_file(folder / "model.safetensors") for folder in (result.model, tmp_path / "two" / "model")]
    assert weights[0].keys() == weights[1].keys()
    if gap < 1e-3:
        for name, weight in weights[0].items():
            torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=1e-3)


VLLM_SCRIPT = """
import json, sys
from vllm import LLM, SamplingParams

model = LLM(sys.argv[1], enforce_eager=True, max_model_len=128, dtype="float32")
chat = [{"role": "user", "content": "Where is the cat?"}]
outputs = model.chat([chat], SamplingParams(temperature=0, max_tokens=12, ignore_eos=True), use_tqdm=False)
print(json.dumps(list(outputs[0].outputs[0].token_ids)))
"""


def test_the_final_model_loads_in_vllm(tmp_path):
    data = write_rows(tmp_path / "pairs.jsonl", pairs(16))
    result = train(settings(MODELS / "base", data, max_steps=3, learning_rate=1e-4), tmp_path / "run", quiet=True)
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", VLLM_SCRIPT, str(result.model)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    tokenizer = AutoTokenizer.from_pretrained(result.model)
    chat = [{"role": "user", "content": "Where is the cat?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    trained = AutoModelForCausalLM.from_pretrained(result.model, dtype=torch.float32)
    with torch.no_grad():
        expected = trained.generate(**ids, do_sample=False, max_new_tokens=12, min_new_tokens=12)
    ours = json.loads(done.stdout.splitlines()[-1])
    assert ours == expected[0, ids["input_ids"].shape[1] :].tolist()
