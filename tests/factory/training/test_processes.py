"""Runs in several processes, and the final model in vLLM."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed import distributed_c10d
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoTokenizer, BatchEncoding, LlamaConfig
from transformers.core_model_loading import Chunk, WeightConverter

from factory.microworld.questions import MODELS
from factory.training.model import sharding
from factory.training.model.memory import release_memory
from factory.training.model.model import load_policy
from factory.training.processes import join_world
from factory.training.run.saving import gather_weights
from factory.training.trainer import train
from schemas.recipe.training import Lora, TrainRun, TrainSettings
from tests.factory.training.conftest import SHAPE, pairs, save_model, turns, write_rows
from tests.factory.training.test_trainer import losses, settings

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")


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


def fork(act: Callable[[], object], count: int = 2) -> None:
    """Have processes act together as if torchrun had started them, but with everything imported already."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if not child:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            try:
                act()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * count


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
    fork(lambda: train(chosen, tmp_path / "two", quiet=True))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=gap)
    weights = [load_file(folder / "model.safetensors") for folder in (result.model, tmp_path / "two" / "model")]
    assert weights[0].keys() == weights[1].keys()
    if gap < 1e-3:
        for name, weight in weights[0].items():
            torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=1e-3)


def test_the_others_wait_for_the_first_process_longer_than_torch_would(monkeypatch):
    monkeypatch.setattr(distributed_c10d, "default_pg_timeout", timedelta(seconds=0.3))

    def write() -> None:
        with join_world(TrainRun(device="cpu")) as world:
            time.sleep(0.6 if world.is_main else 0)
            world.wait()

    fork(write)


def _gather(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@pytest.mark.parametrize("family", ["llama", "cohere", "qwen3", "gemma3", "mixtral", "qwen3_moe"])
def test_what_three_processes_read_is_the_model(family, tmp_path):
    """Rows that do not come out even; tied weights, buffers, experts that are stacked, fewer of these than processes."""
    folder = str(save_model(tmp_path / family, family, dtype=torch.bfloat16))
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def read() -> None:
        with join_world(TrainRun(device="cpu")) as world:
            policy = load_policy(folder, dtype=torch.float32, device=CPU, mesh=world.mesh)
            model = policy.causal_lm
            assert type(model) is type(whole)
            assert all(torch.equal(*pair) for pair in zip(whole.buffers(), model.buffers(), strict=True))
            for is_sharded in (False, True):
                if is_sharded:
                    assert world.mesh is not None
                    policy.shard(world.mesh)
                found = dict(model.named_parameters())
                expected = dict(whole.named_parameters())
                assert found.keys() == expected.keys()
                assert all(torch.equal(_gather(found[name]), weight) for name, weight in expected.items())

    fork(read, 3)


def test_a_process_never_has_more_of_a_model_than_its_part(tmp_path, llama):
    """In processes of their own: a forked one may take its memory from what earlier tests have freed."""
    folder = tmp_path / "wide"
    config = LlamaConfig(**SHAPE | {"vocab_size": 60_000, "hidden_size": 256}, tie_word_embeddings=False)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    code = """
import os, sys
from tests.factory.training.test_processes import take_part
take_part(*sys.argv[1:])
os._exit(0)  # as in a forked process, without what libraries do at exit
"""
    command = [sys.executable, "-c", code, str(llama), str(folder), str(tmp_path)]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(ROOT)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    children = [subprocess.Popen(command, cwd=ROOT, env=os.environ | world | rank) for rank in ranks]
    assert [child.wait() for child in children] == [0, 0]


def take_part(small: str, wide: str, output: str) -> None:
    """Load a model's part, and measure what that takes once all is imported that it needs."""
    size = 4 * 2 * 60_000 * 256
    with join_world(TrainRun(device="cpu")) as world:
        assert world.mesh is not None
        load_policy(small, dtype=torch.float32, device=CPU, mesh=world.mesh).shard(world.mesh)
        with PrivateMemory() as memory:
            policy = load_policy(wide, dtype=torch.float32, device=CPU, mesh=world.mesh)
            policy.shard(world.mesh)
        assert 0.4 * size < memory.growth < 0.7 * size, memory.growth / size
        weights = gather_weights(policy, settings(Path(wide), Path(output)), world)
        assert {weight.dtype for weight in weights.values()} == ({torch.bfloat16} if world.is_main else set())


class PrivateMemory:
    """The most private memory, in bytes, that this process takes while it lasts beyond what it had."""

    def __enter__(self) -> Self:
        release_memory()  # or what it takes may come from what was freed before
        self._before, self.growth, self._is_over = self._now(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.001):
            self.growth = max(self.growth, self._now() - self._before)

    def _now(self) -> int:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024


def test_a_model_whose_rows_lie_elsewhere_in_its_files_is_loaded_whole(llama, monkeypatch):
    halves = WeightConverter(["qk_proj"], ["q_proj", "k_proj"], operations=[Chunk(dim=0)])
    monkeypatch.setattr(sharding, "get_model_conversion_mapping", lambda _: [halves])
    mesh: Any = object()
    with pytest.warns(UserWarning, match="every process loads all of"):
        policy = load_policy(str(llama), dtype=torch.float32, device=CPU, mesh=mesh)
    assert not any(isinstance(parameter, DTensor) for parameter in policy.parameters())


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
    assert isinstance(ids, BatchEncoding)
    trained = AutoModelForCausalLM.from_pretrained(result.model, dtype=torch.float32)
    with torch.no_grad():
        expected = trained.generate(**ids, do_sample=False, max_new_tokens=12, min_new_tokens=12)
    ours = json.loads(done.stdout.splitlines()[-1])
    assert ours == expected[0, ids["input_ids"].shape[1] :].tolist()
