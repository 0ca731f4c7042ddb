"""Packed, tiled log-probabilities and every loss, against the plain computation and the formula in float64."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from factory.training.data.examples import Example
from factory.training.data.layout import pack
from factory.training.model import logprobs
from factory.training.model.logprobs import Head, token_logps
from factory.training.model.losses import preference_rows, sft_rows
from factory.training.model.model import check_logits, load_policy
from schemas.errors import TrainingError
from schemas.recipe.training import TrainSettings
from tests.factory.training.conftest import CONFIGS, VOCABULARY, make_tokenizer, save_model

CPU = torch.device("cpu")


def draw(rng, prompt: int, *answers: int) -> Example:
    def tokens(count):
        return rng.integers(7, VOCABULARY, count).astype(np.int32)

    branches = tuple(tokens(count) for count in answers)
    return Example("row", "en", tokens(prompt), branches, tuple(np.ones(len(part), dtype=bool) for part in branches))


def draw_pairs(seed: int = 0):
    rng = np.random.default_rng(seed)
    return [draw(rng, 5, 9, 3), draw(rng, 21, 4, 17), draw(rng, 1, 1, 30)]


def relative(ours, exact) -> float:
    return float((ours.detach().double() - exact.detach()).norm() / exact.detach().norm())


def plain_logps(model, example: Example):
    """Log-probabilities of a pair's completions in float64: each whole sequence by itself, attention and logits the model's."""
    for prompt, branch in ((example.prompt, branch) for branch in example.branches):
        ids = torch.from_numpy(np.concatenate([prompt, branch]).astype(np.int64))
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        yield torch.log_softmax(logits, -1)[:-1].gather(1, ids[1:, None])[len(prompt) - 1 :, 0]


@pytest.mark.parametrize(("scale", "cap"), [(1.0, 0.0), (0.25, 0.0), (1.0, 4.0), (0.5, 2.0)])
@pytest.mark.parametrize("accumulates", [False, True])
def test_tiles_give_the_formula_and_its_gradients(monkeypatch, scale, cap, accumulates):
    monkeypatch.setitem(logprobs.TILE_BYTES, "cpu", 4 * 16 * 100)
    monkeypatch.setitem(logprobs.TILE_TOKENS, "cpu", 16)
    torch.manual_seed(1)
    hidden, weight = torch.randn(37, 24), torch.randn(1001, 24)
    targets, upstream = torch.randint(0, 1001, (37,)), torch.randn(37)
    exact_hidden, exact_weight = (tensor.double().requires_grad_() for tensor in (hidden, weight))
    logits = exact_hidden @ exact_weight.T * scale
    logits = torch.tanh(logits / cap) * cap if cap else logits
    exact = torch.log_softmax(logits, 1).gather(1, targets[:, None])[:, 0]
    (exact * upstream).sum().backward()
    hidden.requires_grad_()
    weight.requires_grad_()
    ours = token_logps(hidden, Head(weight, scale, cap, accumulates), targets)
    (ours * upstream).sum().backward()
    assert relative(ours, exact) < 1e-6
    assert relative(hidden.grad, exact_hidden.grad) < 1e-5
    assert relative(weight.grad, exact_weight.grad) < 1e-5


@pytest.mark.parametrize(("scale", "cap"), [(1.0, 0.0), (0.25, 0.0), (1.0, 40.0)])
@pytest.mark.parametrize("height", [4.0, 10.0, 20.0, 30.0])
def test_low_precision_is_near_the_exact_value_and_never_above_certainty(height, scale, cap):
    """Targets whose logit is about ``height``, from a guess to near certainty."""
    weight = torch.randn(4000, 256) * 0.05
    targets = torch.randint(0, len(weight), (200,))
    rows = weight[targets]
    hidden = (torch.randn(200, 256) + rows / rows.square().sum(1, keepdim=True) * height / scale).bfloat16()
    logits = hidden.double() @ weight.bfloat16().double().T * scale
    logits = torch.tanh(logits / cap) * cap if cap else logits
    exact = torch.log_softmax(logits, 1).gather(1, targets[:, None])[:, 0]
    ours = token_logps(hidden, Head(weight, scale, cap), targets)
    assert float((ours - exact).square().mean().sqrt()) < 2e-3
    assert float(ours.max()) <= 0


class Largest(TorchDispatchMode):
    """Notes how many elements the largest tensor has that any operation gives back."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return found


@pytest.mark.parametrize("cap", [0.0, 4.0])
def test_no_tensor_of_tokens_by_vocabulary_is_ever_made(cap):
    hidden, weight = torch.randn(2000, 8, requires_grad=True), torch.randn(60_000, 8, requires_grad=True)
    with Largest() as largest:
        token_logps(hidden, Head(weight, 1.0, cap), torch.arange(2000)).sum().backward()
    assert len(weight) * 8 < largest.elements <= logprobs.TILE_BYTES["cpu"] / 4 < 2000 * 60_000 / 100


@pytest.mark.parametrize("family", CONFIGS)
def test_a_packed_pair_with_a_shared_prompt_equals_the_plain_computation(tmp_path, family):
    """Log-probabilities and the gradients of all parameters, against the model's own forward in float64."""
    folder = save_model(tmp_path / family, family)
    examples = draw_pairs()
    policy = load_policy(str(folder), dtype=torch.float32, device=CPU)
    policy.prepare_gradients()
    layout = policy.pack(examples, CPU)
    assert layout.num_tokens == sum(example.num_packed for example in examples)
    ours = policy(layout)
    upstream = torch.linspace(-1, 1, len(ours))
    (ours * upstream).sum().backward()

    exact_model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    exact = torch.cat([logps for example in examples for logps in plain_logps(exact_model, example)])
    (exact * upstream.double()).sum().backward()
    sums = [
        tensor.double().new_zeros(6).index_add(0, layout.sides, tensor.double())
        for tensor in (ours.detach(), exact.detach())
    ]
    assert float(((sums[0] - sums[1]) / sums[1]).abs().max()) < 1e-5
    gradients = dict(exact_model.named_parameters())
    for name, parameter in policy.causal_lm.named_parameters():
        assert relative(parameter.grad, gradients[name].grad) < 1e-5, name


def test_sharing_prompts_changes_nothing(llama):
    policy = load_policy(str(llama), dtype=torch.float32, device=CPU)
    shared = policy(policy.pack(draw_pairs(), CPU))
    policy.shares_prompts = False
    layout = policy.pack(draw_pairs(), CPU)
    assert layout.num_tokens == sum(example.num_tokens for example in draw_pairs())
    torch.testing.assert_close(policy(layout), shared, rtol=1e-5, atol=1e-5)


def settings(**values) -> TrainSettings:
    return TrainSettings(model="m", data="d", **values)


def exact_pair_loss(values: TrainSettings, policy, reference) -> torch.Tensor:
    """The formulas of the papers, one row: policy and reference are (chosen, rejected) token log-probabilities."""
    means = values.length_normalized or values.objective == "simpo"
    total = [tokens.mean() if means else tokens.sum() for tokens in policy]
    base = [0.0, 0.0] if reference is None else [tokens.mean() if means else tokens.sum() for tokens in reference]
    gap = (total[0] - base[0]) - (total[1] - base[1])
    match values.objective:
        case "dpo":
            smoothing = values.label_smoothing
            loss = -(1 - smoothing) * logsigmoid(values.beta * gap) - smoothing * logsigmoid(-values.beta * gap)
        case "ipo":
            loss = (gap - 1 / (2 * values.beta)) ** 2
        case "simpo":
            loss = -logsigmoid(values.beta * gap - values.gamma)
    return loss - values.nll_weight * policy[0].mean()


OBJECTIVES = [
    {"objective": "dpo", "beta": 0.1},
    {"objective": "dpo", "beta": 0.3, "label_smoothing": 0.1},
    {"objective": "dpo", "beta": 5.0, "length_normalized": True},
    {"objective": "dpo", "beta": 0.1, "nll_weight": 0.5},
    {"objective": "ipo", "beta": 0.1},
    {"objective": "ipo", "beta": 0.5, "length_normalized": True},
    {"objective": "simpo", "beta": 2.0, "gamma": 0.5},
]


@pytest.mark.parametrize("values", OBJECTIVES, ids=str)
def test_every_preference_loss_is_its_formula(tmp_path, values):
    """Loss and gradients through a whole model in float32, against the formula over the model in float64."""
    folder = save_model(tmp_path / "gemma3", "gemma3")
    chosen = settings(**values)
    examples = draw_pairs(3)
    policy = load_policy(str(folder), dtype=torch.float32, device=CPU)
    policy.prepare_gradients()
    layout = policy.pack(examples, CPU)
    logps = policy(layout)
    torch.manual_seed(5)
    reference = logps.detach() + torch.randn(len(logps))
    given = None if chosen.objective == "simpo" else reference
    rows = preference_rows(chosen, logps, given, layout.sides, 3)
    (rows.losses.sum() / 3).backward()

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    references = reference.double().split([9, 3, 4, 17, 1, 30])
    exact = torch.stack(
        [
            exact_pair_loss(
                chosen,
                list(plain_logps(model, example)),
                None if given is None else references[2 * number : 2 * number + 2],
            )
            for number, example in enumerate(examples)
        ]
    )
    (exact.sum() / 3).backward()
    assert relative(rows.losses, exact) < 1e-5
    ours = torch.cat([parameter.grad.flatten() for parameter in policy.causal_lm.parameters()])
    theirs = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert relative(ours, theirs) < 1e-5


def test_sft_counts_every_trained_token_alike():
    logps = torch.tensor([-1.0, -2.0, -3.0])
    rows = sft_rows(logps, torch.tensor([0, 0, 1]), 2)
    assert rows.losses.tolist() == [3.0, 3.0]
    assert rows.weights.tolist() == [2.0, 1.0]


def test_what_is_reported_of_a_pair():
    logps, reference = torch.tensor([-1.0, -2.0, -5.0]), torch.tensor([-1.5, -2.5, -3.0])
    sides = torch.tensor([0, 0, 1])
    found = preference_rows(settings(objective="dpo", beta=0.5), logps, reference, sides, 1).values[0].tolist()
    loss, accuracy, margin, chosen_reward, rejected_reward, chosen_logp, rejected_logp, nll, drift = found
    assert (accuracy, margin, chosen_reward, rejected_reward) == (1.0, 1.5, 0.5, -1.0)
    assert (chosen_logp, rejected_logp, nll) == (-3.0, -5.0, 1.5)
    assert loss == pytest.approx(-math.log(1 / (1 + math.exp(-1.5))))
    assert drift == pytest.approx((0.125 + 0.125 + 2.0) / 3)


def test_a_model_that_does_more_than_the_trainer_knows_is_refused(llama, monkeypatch):
    policy = load_policy(str(llama), dtype=torch.float32, device=CPU)
    check_logits(policy, "llama", draw_pairs(), CPU)
    assert policy.shares_prompts
    policy.causal_lm.config.logit_scale = 0.5  # a Llama does not scale its logits
    with pytest.raises(TrainingError, match="is not supported: its own logits"):
        check_logits(policy, "llama", draw_pairs(), CPU)


def test_branches_do_not_see_each_other_and_positions_go_on_from_the_prompt():
    example = draw(np.random.default_rng(0), 3, 2, 4)
    layout = pack([example, example])
    assert layout.positions[0, :9].tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 6]
    places = torch.arange(18)
    sees = layout.sees(places[:, None], places[None, :], None)
    assert sees[4].nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    assert sees[7].nonzero().flatten().tolist() == [0, 1, 2, 5, 6, 7]
    assert not sees[9:, :9].any()
    assert layout.sources.tolist()[:6] == [2, 3, 2, 5, 6, 7]
    assert make_tokenizer().eos_token_id == 2
