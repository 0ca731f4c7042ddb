"""Whole runs of tiny models: learning, resuming, stopping, saving."""

import contextlib
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from factory.training.curves import read_metrics
from factory.training.data.dataset import load_datasets
from factory.training.processes import World
from factory.training.run.loop import Run
from factory.training.run.optimizer_step import Stepper
from factory.training.run.preparation import prepare
from factory.training.trainer import train
from schemas.errors import InputError, TrainingError
from schemas.recipe.training import Lora, TrainSettings
from tests.factory.training.conftest import CONFIGS, chat, make_tokenizer, pairs, save_model, turns, write_rows
from tests.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[3]
ALONE = World(0, 1, torch.device("cpu"))


def settings(model: Path, data: Path, objective: str = "dpo", **values) -> TrainSettings:
    run = {"checkpoint_every": None, "tensorboard": False, "plot": False, "device": "cpu", "cache": str(data.parent)}
    common = {"dtype": "float32", "learning_rate": 3e-3, "batch_rows": 8, "warmup_steps": 2, "max_steps": 6}
    run |= values.pop("run", {})
    named = {"model": str(model), "data": str(data), "objective": objective, "run": run}
    return TrainSettings.model_validate(named | common | values)


@pytest.fixture
def pair_file(tmp_path) -> Path:
    return write_rows(tmp_path / "pairs.jsonl", pairs(40))


@pytest.fixture
def turn_file(tmp_path) -> Path:
    return write_rows(tmp_path / "turns.jsonl", turns(40))


def losses(output: Path, split: str = "train") -> list[float]:
    return [line["loss"] for line in read_metrics(output) if line["split"] == split]


def test_sft_learns_and_leaves_a_whole_model(llama, turn_file, tmp_path):
    output = tmp_path / "run"
    held_out = write_rows(tmp_path / "eval.jsonl", turns(10))
    chosen = settings(
        llama, turn_file, "sft", max_steps=30, eval_every=10, eval_data=str(held_out), run={"tensorboard": True, "plot": True}
    )  # fmt: skip
    result = train(chosen, output, quiet=True)
    found = losses(output)
    assert len(found) == 30
    assert found[-1] < 0.6 * found[0]
    assert losses(output, "eval")[-1] < losses(output, "eval")[0]
    assert result.eval_metrics["languages"].keys() == {"ar", "en", "hi", "ja", "ru"}
    assert (output / "curves.png").stat().st_size > 1000
    assert list((output / "tensorboard").glob("events*"))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(result.model), AutoTokenizer.from_pretrained(result.model)
    assert model.dtype == torch.float32
    assert tokenizer.chat_template == make_tokenizer().chat_template
    assert GenerationConfig.from_pretrained(result.model).eos_token_id == [2, 6]
    written = (output / "result.json").stat().st_mtime_ns
    assert train(chosen, output, quiet=True) == result
    assert (output / "result.json").stat().st_mtime_ns == written


def test_a_complete_run_is_returned_without_torch(llama, turn_file, tmp_path):
    chosen = settings(llama, turn_file, "sft", max_steps=1)
    train(chosen, tmp_path / "run", quiet=True)
    (tmp_path / "settings.json").write_text(chosen.model_dump_json())
    code = (
        "import sys, pathlib; from factory.training.trainer import train; from schemas.recipe.training import load_train_settings\n"
        "folder = pathlib.Path(sys.argv[1]); result = train(load_train_settings(folder / 'settings.json'), folder / 'run')\n"
        "print(result.num_steps, sorted({'torch', 'transformers', 'polars'} & set(sys.modules)))"
    )
    said = subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, text=True)
    assert said == "1 []\n"


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_learns_preferences_and_loads_again(family, pair_file, tmp_path):
    folder = save_model(tmp_path / family, family)
    rate = 1e-2 if family.startswith("cohere") else 3e-3  # their logits are scaled down
    chosen = settings(folder, pair_file, max_steps=15, learning_rate=rate, eval_data=str(pair_file))
    result = train(chosen, tmp_path / "run", quiet=True)
    first, last = losses(tmp_path / "run", "eval")
    assert first == pytest.approx(math.log(2), abs=1e-4)
    assert losses(tmp_path / "run")[0] == pytest.approx(math.log(2), abs=1e-4)
    assert last < 0.6
    before, after = load_file(folder / "model.safetensors"), load_file(result.model / "model.safetensors")
    assert before.keys() == after.keys()
    assert AutoModelForCausalLM.from_pretrained(result.model).config.tie_word_embeddings == (family != "llama")
    assert read_metrics(tmp_path / "run")[-1]["languages"]["ja"].keys() >= {"accuracy", "margin", "kl", "chosen_logp"}


@pytest.mark.parametrize("objective", ["sft", "dpo", "simpo"])
def test_how_the_batch_was_cut_changes_neither_loss_nor_gradient(llama, pair_file, turn_file, tmp_path, objective):
    found = []
    for tokens in (1, 60, 150, 100_000):
        data = turn_file if objective == "sft" else pair_file
        chosen = settings(llama, data, objective, run={"micro_batch_tokens": tokens})
        found.append(first_gradient(chosen, tmp_path / str(tokens), max_grad_norm=1e9))
    for result, gradient in found[1:]:
        assert result.loss == pytest.approx(found[0][0].loss, rel=1e-5)
        assert float((gradient - found[0][1]).norm() / found[0][1].norm()) < 1e-5
        assert dict(result.losses).keys() == dict(found[0][0].losses).keys()


def test_a_gradient_is_clipped_to_its_limit(llama, turn_file, tmp_path):
    chosen = settings(llama, turn_file, "sft")
    (whole, gradient), (clipped, short) = (
        first_gradient(chosen, tmp_path / str(limit), max_grad_norm=limit) for limit in (1e9, 0.01)
    )
    assert whole.grad_norm == clipped.grad_norm == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert float(short.norm()) == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(short / short.norm(), gradient / gradient.norm())


def first_gradient(chosen: TrainSettings, output: Path, *, max_grad_norm: float):
    """Return what the first step finds, and its gradient."""
    output.mkdir()
    ready = prepare(chosen, _identity(chosen), output, ALONE, quiet=True)
    stepper = Stepper(ready.policy, chosen.model_copy(update={"max_grad_norm": max_grad_norm}), ALONE)
    result = stepper.accumulate(ready.train, ready.steps[0])
    return result, torch.cat([parameter.grad.flatten() for parameter in ready.policy.parameters()])


def _identity(chosen: TrainSettings):
    from factory.training.identity import identify_run

    return identify_run(chosen)


def test_activation_checkpointing_changes_nothing(llama, pair_file, tmp_path):
    for name, checkpointing in (("plain", False), ("recomputed", True)):
        chosen = settings(llama, pair_file, run={"activation_checkpointing": checkpointing})
        train(chosen, tmp_path / name, quiet=True)
    assert losses(tmp_path / "plain") == losses(tmp_path / "recomputed")


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_a_run_stopped_at_any_step_goes_on_bit_for_bit(llama, pair_file, turn_file, tmp_path, monkeypatch, objective):
    data = turn_file if objective == "sft" else pair_file
    lora = Lora(rank=4, dropout=0.2) if objective == "dpo" else None  # dropout asks for the random state
    held_out = write_rows(tmp_path / "eval.jsonl", turns(5) if objective == "sft" else pairs(5))
    chosen = settings(
        llama, data, objective, lora=lora, eval_every=2, eval_data=str(held_out), run={"checkpoint_every": 2}
    )
    whole = train(chosen, tmp_path / "whole", quiet=True)
    step = Run._step
    for stop in range(1, 7):
        output = tmp_path / f"stopped-{stop}"

        def stopping(run, number, rate, stop=stop):
            if number == stop:
                raise KeyboardInterrupt
            return step(run, number, rate)

        monkeypatch.setattr(Run, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(chosen, output, quiet=True)
        monkeypatch.setattr(Run, "_step", step)
        result = train(chosen, output, quiet=True)
        assert losses(output) == losses(tmp_path / "whole")
        assert losses(output, "eval") == losses(tmp_path / "whole", "eval")
        assert (result.model / "model.safetensors").read_bytes() == (whole.model / "model.safetensors").read_bytes()


def test_a_killed_process_goes_on_bit_for_bit(llama, pair_file, tmp_path):
    chosen = settings(llama, pair_file, max_steps=400, run={"checkpoint_every": 1})
    output = tmp_path / "killed"
    child = os.fork()  # which has imported everything already
    if not child:
        try:
            train(chosen, output, quiet=True)
        finally:
            os._exit(1)
    deadline = time.monotonic() + GUARD_SECONDS
    while len(losses(output)) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    done = len(losses(output))
    assert 4 <= done < 400
    short = chosen.model_copy(update={"max_steps": 400})
    steps = Run._step

    def stop_soon(run, number, rate):
        if number > done + 3:
            raise KeyboardInterrupt
        return steps(run, number, rate)

    for where in (output, tmp_path / "whole"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Run, "_step", stop_soon)
            train(short, where, quiet=True)
    assert losses(output) == losses(tmp_path / "whole")
    assert len(losses(output)) == done + 3


def test_the_last_checkpoints_and_the_best_one_are_kept(llama, turn_file, tmp_path):
    held_out = write_rows(tmp_path / "eval.jsonl", [{"language": "en"} | chat("?", "wholly different: zzzz 0000")])
    chosen = settings(
        llama,
        turn_file,
        "sft",
        max_steps=12,
        learning_rate=2e-2,
        eval_every=1,
        eval_data=str(held_out),
        final="best",
        run={"checkpoint_every": 1, "keep_last": 2},
    )
    result = train(chosen, tmp_path / "run", quiet=True)
    found = losses(tmp_path / "run", "eval")[1:]
    best = found.index(min(found)) + 1
    assert result.best_step == best < 12
    assert (result.eval_metrics["step"], result.eval_metrics["loss"]) == (best, min(found))
    kept = sorted(int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert set(kept) == {10, 11, best}
    again = settings(result.model, turn_file, "sft", max_steps=1, eval_data=str(held_out))
    train(again, tmp_path / "again", quiet=True)
    assert losses(tmp_path / "again", "eval")[0] == pytest.approx(min(found), rel=1e-5)


def test_the_reference_is_computed_once_and_only_used_where_it_fits(llama, pair_file, tmp_path):
    def caches():
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}

    train(settings(llama, pair_file, max_steps=1), tmp_path / "a", quiet=True)
    first = caches()
    assert len(first) == 1
    train(settings(llama, pair_file, max_steps=2, learning_rate=1e-5, beta=0.5), tmp_path / "b", quiet=True)
    assert caches() == first
    train(settings(llama, pair_file, max_steps=1, max_length=20), tmp_path / "c", quiet=True)
    assert len(caches()) == 2
    trained = train(settings(llama, pair_file, max_steps=3, learning_rate=1e-2), tmp_path / "d", quiet=True)
    train(settings(trained.model, pair_file, max_steps=1), tmp_path / "e", quiet=True)
    assert len(caches()) == 3
    train(settings(trained.model, pair_file, max_steps=1, reference=str(llama)), tmp_path / "f", quiet=True)
    assert len(caches()) == 3
    assert losses(tmp_path / "e")[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses(tmp_path / "f")[0] < 0.68


def test_a_damaged_cache_is_computed_again(llama, pair_file, tmp_path):
    train(settings(llama, pair_file, max_steps=1), tmp_path / "a", quiet=True)
    (cache,) = tmp_path.glob("*.npy")
    cache.write_bytes(cache.read_bytes()[:-8])
    train(settings(llama, pair_file, max_steps=1, beta=0.2), tmp_path / "b", quiet=True)
    assert losses(tmp_path / "b")[0] == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.parametrize("merge", [True, False])
def test_adapters_are_merged_or_saved_alone(llama, pair_file, tmp_path, merge):
    lora = Lora(rank=4, alpha=8, merge=merge)
    result = train(settings(llama, pair_file, lora=lora, learning_rate=1e-2), tmp_path / "run", quiet=True)
    base = AutoModelForCausalLM.from_pretrained(llama)
    if merge:
        model = AutoModelForCausalLM.from_pretrained(result.model)
        assert not (result.model / "adapter_config.json").exists()
    else:
        from peft import PeftModel

        model = PeftModel.from_pretrained(base, result.model).merge_and_unload()
        base = AutoModelForCausalLM.from_pretrained(llama)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, base.state_dict()[name])}
    assert changed == {name for name in base.state_dict() if "proj" in name}
    again = settings(result.model if merge else llama, pair_file, reference=str(llama), max_steps=1, learning_rate=1e-9)
    if merge:
        train(again, tmp_path / "again", quiet=True)
        assert losses(tmp_path / "again")[0] < 0.65


def test_adapters_are_merged_in_float32_into_a_model_of_bfloat16(llama, turn_file, tmp_path):
    from peft import PeftModel

    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16).save_pretrained(half)
    make_tokenizer().save_pretrained(half)
    merged, alone = (
        train(settings(half, turn_file, "sft", lora=Lora(rank=4, merge=merge)), tmp_path / str(merge), quiet=True).model
        for merge in (True, False)
    )
    whole = AutoModelForCausalLM.from_pretrained(half, dtype=torch.float32)
    expected = PeftModel.from_pretrained(whole, alone).merge_and_unload().state_dict()
    found = load_file(merged / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name].bfloat16()) for name, weight in found.items())


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_adapters_on_the_embeddings_of_a_tied_model_leave_its_output_layer_alone(turn_file, tmp_path):
    tied = save_model(tmp_path / "tied", "qwen3")
    lora = Lora(rank=4, targets=("embed_tokens", "q_proj"))
    values = {"eval_data": str(turn_file), "learning_rate": 2e-2}
    result = train(settings(tied, turn_file, "sft", lora=lora, **values), tmp_path / "run", quiet=True)
    base, model = (AutoModelForCausalLM.from_pretrained(folder) for folder in (tied, result.model))
    assert not model.config.tie_word_embeddings
    assert torch.equal(model.get_parameter("lm_head.weight"), base.get_parameter("lm_head.weight"))
    embedded = "model.embed_tokens.weight"
    assert not torch.equal(model.get_parameter(embedded), base.get_parameter(embedded))
    train(settings(result.model, turn_file, "sft", max_steps=1, **values), tmp_path / "again", quiet=True)
    assert losses(tmp_path / "again", "eval")[0] == pytest.approx(result.eval_metrics["loss"], rel=1e-5)


def test_bfloat16_keeps_float32_weights_and_the_checkpoint_keeps_its_dtype(llama, pair_file, tmp_path):
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16).save_pretrained(half)
    make_tokenizer().save_pretrained(half)
    chosen = settings(half, pair_file, dtype="bfloat16")
    result = train(chosen, tmp_path / "run", quiet=True)
    assert {tensor.dtype for tensor in load_file(result.model / "model.safetensors").values()} == {torch.bfloat16}
    assert AutoConfig.from_pretrained(result.model).dtype == torch.bfloat16
    train(settings(half, pair_file), tmp_path / "exact", quiet=True)
    for ours, exact in zip(losses(tmp_path / "run"), losses(tmp_path / "exact"), strict=True):
        assert ours == pytest.approx(exact, abs=0.03)


def test_a_loss_that_is_no_number_names_the_step_and_the_rows(broken_llama, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", [*turns(40), {"id": "odd"} | chat("what is ~", "that")])
    with pytest.raises(TrainingError, match=r"step \d has loss nan .* caused by the rows odd$"):
        train(settings(broken_llama, data, "sft", learning_rate=1e-5), tmp_path / "run", quiet=True)


def test_a_diverging_run_stops(llama, turn_file, tmp_path):
    with pytest.raises(
        TrainingError, match=r"the run diverges: at step \d+ .* the highest losses of step \d+ are row-\d+"
    ):
        train(settings(llama, turn_file, "sft", learning_rate=30.0, max_steps=60), tmp_path / "run", quiet=True)


@pytest.mark.parametrize("is_evaluated", [True, False])
def test_an_easy_first_batch_is_no_divergence_where_there_is_held_out_data(
    llama, turn_file, tmp_path, monkeypatch, is_evaluated
):
    accumulate, easy = Stepper.accumulate, [0.01]

    def ease_first(*arguments):
        result = accumulate(*arguments)
        return replace(result, metrics=result.metrics | {"loss": result.loss * (easy.pop() if easy else 1.0)})

    monkeypatch.setattr(Stepper, "accumulate", ease_first)
    held_out = write_rows(tmp_path / "eval.jsonl", turns(10))
    chosen = settings(llama, turn_file, "sft", learning_rate=1e-9, eval_data=str(held_out) if is_evaluated else None)
    said = r"the run diverges: .* 4 times the initial loss .* or raise divergence_factor if the first rows were easy"
    with contextlib.nullcontext() if is_evaluated else pytest.raises(TrainingError, match=said):
        train(chosen, tmp_path / "run", quiet=True)


def test_a_run_that_could_not_start_leaves_its_folder_to_another(llama, pair_file, turn_file, tmp_path):
    with pytest.raises(InputError, match="preference training needs"):
        train(settings(llama, turn_file, "dpo", max_steps=1), tmp_path / "run", quiet=True)
    assert train(settings(llama, pair_file, "dpo", max_steps=1), tmp_path / "run", quiet=True).num_steps == 1


def test_another_model_or_other_settings_are_refused_in_a_runs_folder(llama, pair_file, tmp_path):
    train(settings(llama, pair_file, max_steps=1), tmp_path / "run", quiet=True)
    other = save_model(tmp_path / "other", seed=1)
    with pytest.raises(TrainingError, match=r"contains a different run, which differs in model \(model: "):
        train(settings(other, pair_file, max_steps=1), tmp_path / "run", quiet=True)
    with pytest.raises(TrainingError, match=r"differs in settings.beta \(settings.beta: 0.1 there, 0.2 now\)"):
        train(settings(llama, pair_file, max_steps=1, beta=0.2), tmp_path / "run", quiet=True)


def test_a_full_disk_leaves_the_last_good_checkpoint(llama, pair_file, tmp_path, monkeypatch):
    chosen = settings(llama, pair_file, run={"checkpoint_every": 1})
    step, limits = Run._step, resource.getrlimit(resource.RLIMIT_FSIZE)

    def filling(run, number, rate):
        if number == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        return step(run, number, rate)

    monkeypatch.setattr(Run, "_step", filling)
    try:
        with pytest.raises(
            TrainingError, match=r"step-0000004 could not be written: .*; the last good one is step-0000003"
        ):
            train(chosen, tmp_path / "run", quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-0000002", "step-0000003"]
    monkeypatch.setattr(Run, "_step", step)
    train(chosen, tmp_path / "run", quiet=True)
    train(chosen, tmp_path / "whole", quiet=True)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_model_that_is_too_small_for_its_data_is_refused(llama, pair_file, tmp_path):
    with pytest.raises(
        TrainingError, match=r"a row has 603 tokens, but model .* has 512 positions; lower 'max_length'"
    ):
        long = write_rows(tmp_path / "long.jsonl", [chat("?", "cat " * 900)])
        train(settings(llama, long, "sft", max_length=603), tmp_path / "run", quiet=True)
    folder = shutil.copytree(llama, tmp_path / "small")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(100)
    model.save_pretrained(folder)
    with pytest.raises(TrainingError, match=r"produces token \d+, but the model has only 100 tokens"):
        train(settings(folder, pair_file), tmp_path / "run2", quiet=True)


def test_rejected_rows_are_listed(llama, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", [*pairs(8), {"id": "same", "language": "en"} | chat("?", "a", "a")])
    result = train(settings(llama, data, max_steps=1), tmp_path / "run", quiet=True)
    assert result.rejected == {"identical_pair": 1}
    (line,) = (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()
    assert json.loads(line) | {"detail": ""} == {
        "split": "train", "row": "same", "language": "en", "reason": "identical_pair", "detail": ""
    }  # fmt: skip


def test_rows_that_were_cut_are_counted(llama, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", [*pairs(8), {"id": "long"} | chat("?", "cat " * 200, "dog")])
    result = train(settings(llama, data, max_steps=1, max_length=100), tmp_path / "run", quiet=True)
    assert (result.num_rows, result.num_cut, result.rejected) == (9, 1, {})


@pytest.mark.parametrize("is_terminal", [False, True])
def test_progress_shows_loss_speed_and_time_left(llama, pair_file, tmp_path, monkeypatch, capsys, is_terminal):
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    chosen = settings(llama, pair_file, eval_data=str(pair_file))
    train(chosen, tmp_path / "run")
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    last = read_metrics(tmp_path / "run")[-2]
    facts = rf"loss {last['loss']:.4f}  accuracy {last['accuracy']:.2f}  margin {last['margin']:.3f}  [\d,]+ tokens/s"
    assert re.search(rf"6/6 {facts} 0:00:00" if is_terminal else rf"step 6/6  {facts}  0 s left\n", said)
    assert "step 6, held out: loss" in said


def test_a_hugging_face_dataset_and_parquet_files_are_read_as_json_lines_are(llama, pair_file, tmp_path):
    import datasets
    import polars as pl

    rows = list(pairs(40))
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    pl.DataFrame(rows[:30]).write_parquet(tmp_path / "part-0.parquet")
    pl.DataFrame(rows[30:]).write_parquet(tmp_path / "part-1.parquet")
    expected, _ = load_datasets(settings(llama, pair_file), make_tokenizer(), [])
    for place in (tmp_path / "saved", tmp_path / "part-*.parquet"):
        found, _ = load_datasets(settings(llama, place), make_tokenizer(), [])
        assert str(found.examples) == str(expected.examples)
    with pytest.raises(InputError, match="no file at"):
        load_datasets(settings(llama, tmp_path / "nothing.jsonl"), make_tokenizer(), [])


def write_last(folder, row):
    """Write a file of the last turn and its question alone."""
    path = folder / "last.jsonl"
    write_rows(path, [{"messages": row["messages"][2:]}])
    return path


def test_of_an_export_the_routed_answer_alone_is_trained(llama, tmp_path):
    """The turns before it are the prompt; of a file of conversations each answer is trained."""
    folder = tmp_path / "v0001"
    (folder / "sft").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"export_id": "e"}))
    texts = ("two and two?", "five", "really?", "no, it is four")
    roles = ("user", "assistant", "user", "assistant")
    row = {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]}
    shard = folder / "sft" / "train-00000-of-00001.jsonl"
    write_rows(shard, [row])

    def count_trained(data):
        train_set, _ = load_datasets(settings(llama, data, "sft"), make_tokenizer(), [])
        return sum(train_set.examples[0].num_trained)

    (answer,) = load_datasets(settings(llama, write_last(tmp_path, row), "sft"), make_tokenizer(), [])[0].examples
    assert count_trained(folder) == sum(answer.num_trained)
    assert count_trained(shard) > sum(answer.num_trained)


def test_an_export_is_read_with_its_held_out_split(llama, tmp_path):
    folder = tmp_path / "v0001"
    (folder / "preference").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"export_id": "e"}))
    write_rows(folder / "preference" / "train-00000-of-00001.jsonl", pairs(20))
    write_rows(folder / "preference" / "eval-00000-of-00001.jsonl", pairs(5))
    train_set, held_out = load_datasets(settings(llama, folder), make_tokenizer(), [])
    assert (len(train_set.examples), len(held_out.examples)) == (20, 5)
    assert train_set.lengths is train_set.lengths  # counted once, not at every step
