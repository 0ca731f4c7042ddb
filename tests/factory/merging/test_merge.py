"""Whole merges of checkpoints: streaming, layout, repeatability, what comes along, tied embeddings, bad input."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from factory.merging import merge as merge_module
from factory.merging import passes, selection, stream
from factory.merging.merge import merge
from factory.merging.passes import Block, Parameter, Scratch, plan_steps
from schemas.disk import whole_folder
from schemas.errors import HeldError, InputError
from schemas.recipe.merging import MergeSettings
from tests.factory.merging.conftest import draw_weights, read_weights, same, write_checkpoint
from tests.factory.merging.whole import merge_whole

METHODS = ["linear", "slerp", "ties", "dare_linear", "dare_ties"]


def settings(method: str, parents: Any, **changes: Any) -> MergeSettings:
    base, *models = map(str, parents)
    options = {"base": base} if method.endswith("ties") or method.startswith("dare") else {}
    run = changes.pop("run", {})
    return MergeSettings.model_validate(
        {"method": method, "models": [{"model": model} for model in models], **options, **changes, "run": run}
    )


@pytest.fixture(params=[(64, 100), (64, 1 << 18), (1 << 17, 1 << 18)], ids=["sampled", "many blocks", "one block"])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(merge_module, "BLOCK_ELEMENTS", request.param[0])
    monkeypatch.setattr(stream, "BLOCKS_PER_TASK", 2)
    monkeypatch.setattr(selection, "SAMPLE_SIZE", request.param[1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("_blocks")
def test_the_stream_is_the_method(method, parents, tmp_path):
    """Each parameter of the result is what the method makes of the whole parents', rounded once."""
    result = merge(settings(method, parents, density=0.4, seed=3), tmp_path / "out")
    base, *models = ({name: t.float() for name, t in read_weights(parent).items()} for parent in parents)
    written = read_weights(tmp_path / "out")
    assert list(written) == sorted(base)
    for name, tensor in written.items():
        own_base = None if method in {"linear", "slerp"} else base[name]
        tensors = [model[name] for model in models]
        wanted = merge_whole(method, tensors, [1.0] * 3, own_base, name=name, density=0.4, seed=3)
        torch.testing.assert_close(tensor, wanted.bfloat16(), rtol=2**-7, atol=1e-6)
        assert (tensor == wanted.bfloat16()).double().mean() > 0.99
    assert result.num_parameters == sum(tensor.numel() for tensor in written.values())
    assert result.notes == ()


@pytest.mark.usefixtures("_blocks")
def test_dare_restores_the_l1_norm_of_each_task_vector(parents, tmp_path):
    merge(settings("dare_linear", parents[:2], density=0.3, rescale="l1", dtype="float32"), tmp_path / "out")
    base, model, merged = (read_weights(folder) for folder in (*parents[:2], tmp_path / "out"))
    for name in base:
        before, after = (other[name].double() - base[name].double() for other in (model, merged))
        assert after.abs().sum().item() == pytest.approx(before.abs().sum().item(), rel=1e-5)
        assert after.count_nonzero() < before.count_nonzero()


@pytest.mark.parametrize("method", METHODS)
def test_bytes_depend_on_neither_shards_nor_threads(method, tmp_path, monkeypatch):
    """The same parents in one shard and in four, merged by one thread and by three into one shard and into many."""
    monkeypatch.setattr(stream, "BLOCKS_PER_TASK", 1)
    results = []
    for num_shards, threads, max_shard_gb in ((1, 1, 5.0), (4, 3, 4e-6)):
        root = tmp_path / str(num_shards)
        parents = [write_checkpoint(root / str(seed), draw_weights(seed), num_shards=num_shards) for seed in range(4)]
        run = {"threads": threads, "max_shard_gb": max_shard_gb}
        merge(settings(method, parents, run=run, density=0.3), root / "out")
        results.append(read_weights(root / "out"))
    assert same(*results)


def test_shards_are_bounded_and_indexed(parents, tmp_path):
    merge(settings("linear", parents, run={"max_shard_gb": 4e-6}), tmp_path / "out")
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    shards = sorted((tmp_path / "out").glob("model-*.safetensors"))
    assert len(shards) > 3
    weights: dict[str, Any] = {}
    for shard in shards:
        held = load_file(shard)
        assert sum(tensor.numel() * 2 for tensor in held.values()) <= 4000
        assert {name for name, file in index["weight_map"].items() if file == shard.name} == set(held)
        weights |= held
    assert index["metadata"]["total_size"] == sum(tensor.numel() * 2 for tensor in weights.values())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_merge_of_equal_models_is_that_model(method, dtype, make, tmp_path):
    equal = [make(name, seed=1, dtype=dtype) for name in "abc"]
    changes = {"density": 1.0, "normalize": True} if method != "linear" else {}
    merge(settings(method, [make("base", seed=0, dtype=dtype), *equal], **changes), tmp_path / "out")
    assert same(read_weights(tmp_path / "out"), read_weights(equal[0]))


def test_a_model_alone_is_itself(parents, tmp_path):
    """So are the singles that a search begins with."""
    for number, method in enumerate(("linear", "slerp")):
        models = [
            {"model": str(folder), "weight": weight} for folder, weight in zip(parents, (0, 0, 1, 0), strict=True)
        ]
        merge(MergeSettings.model_validate({"method": method, "models": models}), tmp_path / f"out{number}")
        assert same(read_weights(tmp_path / f"out{number}"), read_weights(parents[2]))


def test_density_zero_leaves_the_base(parents, tmp_path):
    for method in ("ties", "dare_linear", "dare_ties"):
        merge(settings(method, parents, density=0.0), tmp_path / method)
        assert same(read_weights(tmp_path / method), read_weights(parents[0]))


def test_dtypes(make, tmp_path):
    """Mixed parents are merged in the widest; the first decides about the result unless a dtype is asked for."""
    parents = [make("a", seed=1, dtype=torch.float16), make("b", seed=2, dtype=torch.float32)]
    models = [{"model": str(parent)} for parent in parents]
    merge(MergeSettings.model_validate({"models": models}), tmp_path / "out")
    merge(MergeSettings.model_validate({"models": models, "dtype": "float32"}), tmp_path / "wide")
    left, right = map(read_weights, parents)
    for name, tensor in read_weights(tmp_path / "wide").items():
        mean = (left[name].double() + right[name].double()) / 2
        assert torch.equal(tensor, mean.float())
        assert torch.equal(read_weights(tmp_path / "out")[name], mean.half())
    assert json.loads((tmp_path / "out/config.json").read_text())["torch_dtype"] == "float16"
    assert json.loads((tmp_path / "wide/config.json").read_text())["torch_dtype"] == "float32"


def test_integers_are_the_first_models(tmp_path):
    for number in range(2):
        weights = draw_weights(number) | {"model.steps": torch.tensor([number, 7]), "empty": torch.zeros(0, 3)}
        write_checkpoint(tmp_path / str(number), weights | {"scalar": torch.tensor(float(number))})
    models = [{"model": str(tmp_path / name)} for name in "01"]
    merge(MergeSettings.model_validate({"models": models}), tmp_path / "out")
    merged = read_weights(tmp_path / "out")
    assert merged["model.steps"].tolist() == [0, 7]
    assert merged["empty"].shape == (0, 3)
    assert merged["scalar"].item() == 0.5


def test_weights_by_depth_and_by_pattern(parents, tmp_path):
    models = [
        {"model": str(parents[1]), "weight": [0.0, 1.0], "patterns": {"mlp": 1.0, r"q_proj": [1.0, 0.0]}},
        {"model": str(parents[2]), "weight": [1.0, 0.0], "patterns": {"mlp": 0.0, r"q_proj": [0.0, 1.0]}},
    ]
    merge(MergeSettings.model_validate({"models": models}), tmp_path / "out")
    first, second, merged = (read_weights(folder) for folder in (*parents[1:3], tmp_path / "out"))
    for name, share in {
        "model.embed_tokens.weight": 0.0,
        "model.layers.0.input_layernorm.weight": 0.0,
        "model.layers.1.input_layernorm.weight": 0.5,
        "model.layers.2.input_layernorm.weight": 1.0,
        "model.norm.weight": 1.0,
        "lm_head.weight": 1.0,
        "model.layers.0.mlp.up_proj.weight": 1.0,
        "model.layers.2.mlp.up_proj.weight": 1.0,
        "model.layers.0.self_attn.q_proj.weight": 1.0,
        "model.layers.2.self_attn.q_proj.weight": 0.0,
    }.items():
        wanted = share * first[name].float() + (1 - share) * second[name].float()
        assert torch.equal(merged[name], wanted.bfloat16()), name


def test_what_comes_along(parents, tmp_path):
    (parents[2] / "chat_template.jinja").write_text("{{ other }}")
    (parents[0] / "chat_template.jinja").unlink()  # a base need not have one
    (parents[1] / "additional_chat_templates").mkdir()
    (parents[1] / "additional_chat_templates/tool.jinja").write_text("tool")
    config = json.loads((parents[3] / "config.json").read_text())
    (parents[3] / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0, "transformers_version": "4"}))
    result = merge(settings("ties", parents), tmp_path / "out")
    for name in (
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
        "additional_chat_templates/tool.jinja",
    ):
        assert (tmp_path / "out" / name).read_bytes() == (parents[1] / name).read_bytes()
    assert json.loads((tmp_path / "out/config.json").read_text()) == json.loads(
        (parents[1] / "config.json").read_text()
    )
    assert result.notes == (
        f"config.json: rope_theta is null in '{parents[1]}', which is used, and 5.0 in '{parents[3]}'",
        f"chat_template.jinja of '{parents[2]}' differs; that of '{parents[1]}' is copied",
    )


def tie(folder: Path, *, said: bool | None = True) -> Path:
    """Make a checkpoint one with tied embeddings, by its configuration or silently."""
    weights = read_weights(folder)
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    del config["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(config if said is None else config | {"tie_word_embeddings": said}))
    return folder


@pytest.mark.parametrize("said", [True, None])
def test_tied_stays_tied(said, parents, tmp_path):
    for parent in parents:
        tie(parent, said=said)
    result = merge(settings("ties", parents), tmp_path / "out")
    assert "lm_head.weight" not in read_weights(tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is True
    assert result.notes == ()


def test_an_output_layer_that_a_tied_model_saved_does_not_count(parents, tmp_path):
    config = json.loads((parents[1] / "config.json").read_text())
    (parents[1] / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    tie(parents[2])
    merge(settings("linear", parents[:3]), tmp_path / "out")
    assert "lm_head.weight" not in read_weights(tmp_path / "out")


@pytest.mark.parametrize("tied", [1, 2])
def test_tied_and_untied_make_an_untied_model_and_say_so(tied, parents, tmp_path):
    tie(parents[tied])
    result = merge(settings("linear", parents[:3]), tmp_path / "out")
    merged = read_weights(tmp_path / "out")
    left, right = (read_weights(parent) for parent in parents[1:3])
    heads = [weights.get("lm_head.weight", weights["model.embed_tokens.weight"]).float() for weights in (left, right)]
    assert torch.equal(merged["lm_head.weight"], ((heads[0] + heads[1]) / 2).bfloat16())
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    (note,) = result.notes
    assert (
        note == f"only some parents tie their embeddings ('{parents[tied]}'): the result has an output layer of its own"
    )
    merge(settings("linear", parents[:3]), tmp_path / "again")
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def shorten(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def break_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 20) + b"{" * 20)


def change_config(**changes: Any):
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def change_weights(**changes: Any):
    def change(folder: Path) -> None:
        weights = read_weights(folder)
        for name, tensor in changes.items():
            weights[name.replace("__", ".")] = tensor
        save_file(weights, folder / "model.safetensors")

    return change


def change_tokenizer(folder: Path) -> None:
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"]["vocab"]["é"] = 7
    (folder / "tokenizer.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (shorten, r"'.*/b/model.safetensors' is truncated: it has [\d,]+ bytes and should have [\d,]+"),
        (break_header, r"'.*/b/model.safetensors' is not a safetensors file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 5), "is not a safetensors file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "is truncated or not safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has neither model.safetensors nor model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json in '.*/b' cannot be read"),
        (shutil.rmtree, "there is no model folder '.*/b'"),
        (
            change_config(architectures=["Qwen3ForCausalLM"]),
            "'.*/a' is a LlamaForCausalLM and '.*/b' a Qwen3ForCausalLM",
        ),
        (change_config(vocab_size=41), "vocab_size is 40 in '.*/a' and 41 in '.*/b'"),
        (change_config(num_attention_heads=4), "num_attention_heads is 2 in '.*/a' and 4 in '.*/b'"),
        (change_config(quantization_config={"bits": 4}), "'.*/b' is quantized"),
        (
            change_tokenizer,
            "1 tokens have different ids in '.*/b/tokenizer.json' .* such as 'é' .7 and 1.; only models of",
        ),
        (
            change_weights(model__norm__weight=torch.zeros(25)),
            r"parameter 'model.norm.weight' has shape \(24,\) in '.*/a' and \(25,\) in '.*/b'",
        ),
        (
            change_weights(model__norm__weight=torch.zeros(24, dtype=torch.int32)),
            "parameter 'model.norm.weight' has dtype torch.bfloat16 in '.*/a' and torch.int32 in '.*/b'",
        ),
        (
            change_weights(model__extra__weight=torch.zeros(2)),
            "'.*/b' has the parameter 'model.extra.weight', which '.*/a' does not have",
        ),
        (
            change_weights(model__norm__weight=torch.zeros(24).to(torch.float8_e4m3fn)),
            "tensor 'model.norm.weight' in '.*' has dtype F8_E4M3; allowed are F64, F32, F16, BF16",
        ),
    ],
)
def test_a_bad_parent_is_one_sentence_and_leaves_nothing(spoil, sentence, parents, tmp_path):
    spoil(parents[2])
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError, match=sentence) as caught:
        merge(settings("linear", parents), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_missing_shard(make, tmp_path):
    parents = [make(name, seed=seed, num_shards=3) for seed, name in enumerate("ab")]
    (parents[1] / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"'.*/b' lacks the shard model-00002-of-00003.safetensors, which its index names"
    ):
        merge(settings("linear", [None, *parents]), tmp_path / "out")


def test_weights_that_sum_to_zero(parents, tmp_path):
    models = [{"model": str(parents[1]), "weight": 1.0}, {"model": str(parents[2]), "weight": [1.0, -1.0]}]
    with pytest.raises(InputError, match=r"the weights of parameter 'lm_head.weight' sum to zero \(1, -1\)"):
        merge(MergeSettings.model_validate({"models": models}), tmp_path / "out")


def test_parameters_without_weight_stay_the_bases(parents, tmp_path):
    base, model, _, _ = parents
    for method in ("ties", "dare_linear", "dare_ties"):
        models = [{"model": str(model), "patterns": {"embed_tokens|lm_head": 0.0}}]
        options = {"method": method, "models": models, "base": str(base), "density": 1.0}
        merge(MergeSettings.model_validate(options), tmp_path / method)
        merged = read_weights(tmp_path / method)
        for name, tensor in merged.items():
            kept = "embed_tokens" in name or "lm_head" in name
            assert torch.equal(tensor, read_weights(base if kept else model)[name]), name
        nothing = [{"model": str(model), "weight": 0.0}]
        with pytest.raises(InputError, match="the weights of all parameters are zero"):
            merge(MergeSettings.model_validate(options | {"models": nothing}), tmp_path / "none")


def test_an_output_that_exists_is_left_alone(parents, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=r"'.*/out' already exists; choose another folder"):
        merge(settings("linear", parents), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_an_error_on_the_way_leaves_nothing(parents, tmp_path):
    """A file is cut short after its header was read."""

    def cut(done: int, total: int) -> None:
        for path in parents[2].glob("*.safetensors"):
            with path.open("r+b") as file:
                file.truncate(3000)

    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError, match=r"'.*/b/model.safetensors' was truncated while it was read"):
        merge(settings("linear", parents, run={"threads": 1}), tmp_path / "out", progress=cut)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_a_killed_merge_left_is_cleared_away(parents, tmp_path):
    (tmp_path / ".unfinished-out").mkdir()
    (tmp_path / ".unfinished-out/model-00001-of-00002.safetensors").write_bytes(b"half")
    merge(settings("linear", parents), tmp_path / "out")
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith((".", "model-00001"))]
    with whole_folder(tmp_path / "two"), pytest.raises(HeldError, match="another process is writing"):
        merge(settings("linear", parents), tmp_path / "two")


def test_progress_is_in_bytes(parents, tmp_path):
    seen: list[tuple[int, int]] = []
    result = merge(settings("ties", parents), tmp_path / "out", progress=lambda *counts: seen.append(counts))
    assert seen == sorted(seen)
    assert seen[-1] == (result.num_bytes, result.num_bytes)
    assert len(seen) == len(read_weights(tmp_path / "out"))


def test_torch_keeps_its_threads(parents, tmp_path):
    before = torch.get_num_threads()
    merge(settings("linear", parents), tmp_path / "out")
    assert torch.get_num_threads() == before


class NoCopies(TorchFunctionMode):
    """Copies between fake tensors are left out: torch asks a real GPU about them."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not torch.Tensor.copy_:
            return function(*args, **(kwargs or {}))
        assert args[0].device == args[1].device
        return args[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("normalize", [True, False])
def test_a_block_is_made_where_its_values_are(method, normalize, monkeypatch):
    """Torch's fake tensors stand in for a GPU's: an operation on tensors of two devices is refused."""
    monkeypatch.setattr(passes, "draw_mask", lambda *_: torch.ones(100, dtype=torch.uint8))  # numpy's are never fake
    density = 1.0 if method == "ties" else 0.5  # what a threshold is selected from goes to the CPU
    wanted = settings(method, ["base", "a", "b", "c"], density=density, normalize=normalize)
    scratch = Scratch()

    def read(number: int, slot: int = 0) -> torch.Tensor:
        return scratch.take(f"values {slot}", 100, torch.float32, "cuda")

    steps = plan_steps(wanted, Parameter("w", (100,), 100, (1.0, 0.0 if method == "slerp" else -0.5, 0.0)))
    with pytest.raises(StopIteration) as stop:
        next(steps)
    with FakeTensorMode(), NoCopies():
        assert stop.value.value(Block(64, 164, read, lambda: read(-1, -1), scratch)).device.type == "cuda"


def test_a_gpu_that_is_not_there(parents, tmp_path):
    wanted = "device 'cuda:99' was given, but torch sees (no GPU|the GPUs 0 to .*); 'cpu' is always allowed"
    with pytest.raises(InputError, match=wanted):
        merge(settings("linear", parents, run={"device": "cuda:99"}), tmp_path / "out")


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_makes_what_the_cpu_makes(method, parents, tmp_path):
    """But for the order of additions: blocks are larger there."""
    changes = {"density": 0.3, "rescale": "l1", "dtype": "float32"}
    for device in ("cpu", "cuda"):
        merge(settings(method, parents, run={"device": device}, **changes), tmp_path / device)
    ours, theirs = (read_weights(tmp_path / device) for device in ("cpu", "cuda"))
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-5, atol=1e-6)
