"""Runs that cannot go well: broken numbers, full disks, settings that fit nothing. Each ends in one clear sentence."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from factory.training import lock
from factory.training.run.loop import Run
from factory.training.trainer import train
from schemas.errors import TrainingError
from schemas.recipe.training import Lora, TrainSettings
from tests.factory.training.conftest import chat, pairs, turns, write_rows
from tests.factory.training.test_trainer import losses, pair_file, settings
from tests.machine import make_small_disk
from tests.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[3]

__all__ = ["make_small_disk", "pair_file"]


def fill(disk: Path, *, room: int) -> None:
    """Leave a disk with so many free bytes."""
    state = os.statvfs(disk)
    (disk / "filler").write_bytes(b"x" * (state.f_bavail * state.f_bsize - room))


def before_step(monkeypatch, number, act):
    """Have something happen before a step of a run."""
    step = Run._step

    def acting(run, at, rate):
        if at == number:
            act()
        return step(run, at, rate)

    monkeypatch.setattr(Run, "_step", acting)


def test_a_held_out_loss_that_is_no_number_names_the_rows(broken_llama, tmp_path):
    held_out = write_rows(tmp_path / "eval.jsonl", [*turns(3), {"id": "odd"} | chat("what is ~", "that")])
    data = write_rows(tmp_path / "rows.jsonl", turns(20))
    with pytest.raises(TrainingError, match=r"after step 0 the held-out loss is nan, caused by the rows odd$"):
        train(settings(broken_llama, data, "sft", eval_data=str(held_out)), tmp_path / "run", quiet=True)


def test_a_full_disk_at_the_final_save_leaves_the_checkpoints(llama, pair_file, tmp_path, make_small_disk, monkeypatch):
    disk = make_small_disk(tmp_path / "small", 2)
    chosen = settings(llama, pair_file, run={"checkpoint_every": 3})
    with monkeypatch.context() as patch:
        before_step(patch, 6, lambda: fill(disk, room=60_000))
        with pytest.raises(
            TrainingError, match=r"could not be written to .*: .*No space left.*; the checkpoints are kept"
        ):
            train(chosen, disk / "run", quiet=True)
    assert [path.name for path in (disk / "run" / "checkpoints").iterdir()] == ["step-0000003"]
    assert not list((disk / "run").glob("*model*"))
    (disk / "filler").unlink()
    train(chosen, disk / "run", quiet=True)
    train(chosen, tmp_path / "whole", quiet=True)
    assert losses(disk / "run") == losses(tmp_path / "whole")


def test_a_full_disk_between_saves_is_one_sentence(llama, pair_file, tmp_path, make_small_disk, monkeypatch):
    disk = make_small_disk(tmp_path / "small", 2)
    before_step(monkeypatch, 4, lambda: fill(disk, room=0))
    with pytest.raises(TrainingError, match=r"the run in .* stopped: .*No space left on device"):
        train(settings(llama, pair_file, max_steps=60), disk / "run", quiet=True)


def test_held_out_rows_that_cannot_be_used_are_listed(llama, tmp_path):
    folder = tmp_path / "v0001"
    (folder / "preference").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"export_id": "e"}))
    write_rows(folder / "preference" / "train-00000-of-00001.jsonl", pairs(20))
    write_rows(folder / "preference" / "eval-00000-of-00001.jsonl", [{"id": "same"} | chat("?", "a", "a")])
    result = train(settings(llama, folder, max_steps=1), tmp_path / "run", quiet=True)
    (line,) = (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line)["split"] == "eval"
    assert result.eval_metrics == {}


def test_the_best_model_needs_held_out_data(llama, pair_file, tmp_path):
    with pytest.raises(TrainingError, match="final = 'best' needs held-out data"):
        train(settings(llama, pair_file, final="best", eval_every=1), tmp_path / "run", quiet=True)


def test_a_model_whose_files_lack_a_weight_is_refused(llama, pair_file, tmp_path):
    folder = shutil.copytree(llama, tmp_path / "lacking")
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"model '.*lacking' .*: its files have no weights for lm_head\.weight$"):
        train(settings(folder, pair_file), tmp_path / "run", quiet=True)


def test_a_reference_that_does_more_than_the_trainer_knows_is_refused(llama, pair_file, tmp_path):
    odd = shutil.copytree(llama, tmp_path / "odd")
    amend(odd / "config.json", logit_scale=0.5)  # which a Llama does not heed
    with pytest.raises(TrainingError, match=r"model '.*odd' is not supported: its own logits"):
        train(settings(llama, pair_file, reference=str(odd)), tmp_path / "run", quiet=True)


@pytest.mark.parametrize("lora", [None, Lora(rank=2)])
def test_a_model_keeps_a_generation_config_that_transformers_would_not_save(llama, pair_file, tmp_path, lora):
    odd = shutil.copytree(llama, tmp_path / "odd")
    amend(odd / "generation_config.json", do_sample=False, temperature=0.6)
    result = train(settings(odd, pair_file, max_steps=1, lora=lora), tmp_path / "run", quiet=True)
    kept = json.loads((result.model / "generation_config.json").read_bytes())
    assert (kept["temperature"], kept["eos_token_id"]) == (0.6, [2, 6])


def amend(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_bytes()) | values))


def test_adapters_on_the_output_layer_are_refused(llama, pair_file, tmp_path):
    lora = Lora(targets=("lm_head", "q_proj"))
    with pytest.raises(TrainingError, match="adapters cannot be added to the output layer"):
        train(settings(llama, pair_file, lora=lora), tmp_path / "run", quiet=True)


def test_a_seed_may_be_of_any_size(llama, pair_file, tmp_path):
    found = []
    for seed in (2**70, 2**70 + 1):
        chosen = settings(llama, pair_file, max_steps=2, seed=seed, lora=Lora(rank=2, dropout=0.5))
        train(chosen, tmp_path / str(seed), quiet=True)
        found.append(losses(tmp_path / str(seed)))
    assert found[0] != found[1]


def start(chosen: TrainSettings, output: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a run in a process of its own; return when it has made some steps."""
    file = output.with_suffix(".json")
    file.write_text(chosen.model_dump_json())
    command = [sys.executable, "-m", "factory.training", str(file), str(output), "--quiet", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    await_steps(output, process)
    return process


def await_steps(output: Path, process: subprocess.Popen[str], count: int = 3) -> None:
    deadline = time.monotonic() + GUARD_SECONDS
    while len(losses(output)) < count and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    assert len(losses(output)) >= count


def test_a_run_keeps_others_out_of_its_folder_and_a_signal_ends_it_with_its_state_saved(
    llama, pair_file, tmp_path, monkeypatch
):
    chosen = settings(llama, pair_file, max_steps=5_000)
    output = tmp_path / "run"
    process = start(chosen, output)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.3)
    with pytest.raises(TrainingError, match=f"process {process.pid} is already training in {output}; wait until it"):
        train(chosen, output, quiet=True)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=GUARD_SECONDS)
    assert process.returncode == 1
    done = len(losses(output))
    assert said == (f"error: SIGTERM stopped the run after step {done} of 5000; the same command resumes from there\n")
    assert [path.name for path in (output / "checkpoints").iterdir()] == [f"step-{done:07d}"]
    with monkeypatch.context() as patch:
        before_step(patch, done + 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(TrainingError, match=f"SIGINT stopped the run after step {done + 2} of"):
            train(chosen, output, quiet=True)
        with pytest.raises(TrainingError, match=f"SIGINT stopped the run after step {done + 2} of"):
            train(chosen, tmp_path / "whole", quiet=True)
    assert losses(output) == losses(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_and_one_goes_on(llama, pair_file, tmp_path):
    chosen = settings(llama, pair_file, max_steps=5_000, run={"processes": 2})
    process = start(chosen, tmp_path / "run", "--error", str(tmp_path / "error.txt"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=GUARD_SECONDS)
    done = len(losses(tmp_path / "run"))
    assert f"stopped the run after step {done} of" in (tmp_path / "error.txt").read_text()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [f"step-{done:07d}"]


def die_at_checkpoint(path: Path, target: Path) -> None:
    if path.name.startswith(".unfinished-step"):
        os.kill(os.getpid(), signal.SIGKILL)
    path.replace(target)


def test_what_a_killed_save_left_is_no_checkpoint_and_is_cleared(llama, pair_file, tmp_path, monkeypatch):
    """Killed between writing a checkpoint and moving it to its place."""
    chosen = settings(llama, pair_file, run={"checkpoint_every": 2})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die_at_checkpoint)
        child = os.fork()
        if not child:
            try:
                train(chosen, tmp_path / "run", quiet=True)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (left,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert left.name == ".unfinished-step-0000002"
    assert (left / "progress.json").is_file()
    train(chosen.model_copy(update={"run": settings(llama, pair_file).run}), tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    train(chosen, tmp_path / "whole", quiet=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
