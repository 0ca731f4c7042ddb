"""Steps, micro-batches, learning rates and weight decay: pure functions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from factory.training.data.batches import cut_micro_batches, plan_steps
from factory.training.run.optimization import learning_rate_at, make_optimizer
from schemas.errors import RecipeError, TrainingError
from schemas.recipe.training import TrainSettings, load_train_settings
from tests.pace import takes_at_most


def settings(**values) -> TrainSettings:
    return TrainSettings(**({"model": "m", "data": "d", "objective": "sft"} | values))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(1, 120), st.integers(1, 4))
def test_micro_batches_lose_no_row_and_keep_the_limit(lengths, limit, world):
    batches = cut_micro_batches(range(len(lengths)), lengths, limit, world)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) % world == 0
    assert all(len(batch) == 1 or sum(lengths[row] for row in batch) <= limit for batch in batches if batch)


def test_a_large_data_set_is_cut_in_less_than_the_square_of_its_time():
    lengths = [100 + row * 7919 % 900 for row in range(40_000)]
    assert takes_at_most(30, lambda: cut_micro_batches(range(len(lengths)), lengths, 8192, 8))
    batches = cut_micro_batches(range(len(lengths)), lengths, 8192, 8)
    assert max(sum(lengths[row] for row in batch) for batch in batches) <= 8192


def test_every_epoch_has_every_row_once_in_an_order_of_its_own():
    steps = plan_steps([1] * 10, settings(batch_rows=4, epochs=2))
    assert [len(step) for step in steps] == [4] * 5
    rows = [row for step in steps for row in step]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]
    assert steps == plan_steps([1] * 10, settings(batch_rows=4, epochs=2))
    assert steps != plan_steps([1] * 10, settings(batch_rows=4, epochs=2, seed=1))
    assert sum(map(len, plan_steps([1] * 10, settings(batch_rows=4, epochs=0.5)))) == 5


def test_steps_may_be_counted_in_tokens():
    lengths = [3, 5, 7, 2, 9, 4]
    steps = plan_steps(lengths, settings(batch_tokens=10))
    assert sorted(row for step in steps for row in step) == list(range(6))
    assert all(sum(lengths[row] for row in step) <= 10 for step in steps)


def test_max_steps_goes_round_the_data():
    assert len(plan_steps([1] * 3, settings(batch_rows=2, max_steps=7))) == 7


def test_learning_rates():
    def rates(**values):
        chosen = settings(learning_rate=1.0, **values)
        return [round(learning_rate_at(step, 8, chosen), 4) for step in range(1, 9)]

    assert rates(schedule="constant", warmup_steps=4) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert rates(schedule="linear", warmup_steps=0) == [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    cosine = rates(schedule="cosine", warmup_ratio=0.25, min_learning_rate_ratio=0.1)
    assert cosine[:3] == [0.5, 1, 1]
    assert cosine[3:] == sorted(cosine[3:], reverse=True)
    assert 0.1 < cosine[-1] < 0.2


def test_weight_decay_leaves_norms_and_biases_alone():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    optimizer = make_optimizer(module.parameters(), settings(weight_decay=0.1))
    decayed = {id(each) for group in optimizer.param_groups if group["weight_decay"] for each in group["params"]}
    assert decayed == {id(module[0].weight)}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4
    assert isinstance(optimizer, torch.optim.AdamW)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[train]\nmodel = 'm'\ndata = 'd'\nobjective = 'ppo'", r"s.toml:4: train.objective: .*'sft', 'dpo', 'ipo' or 'simpo'"),
        ("[train]\nmodel = 'm'\ndata = 'd'\nobjective = 'dpo'\nbetta = 1", r"s.toml:5: train.betta: .*did you mean 'beta'"),
        ("[train]\nmodel = 'm'\ndata = 'd'\nobjective = 'sft'\nnll_weight = 1.0", "belong to preference objectives"),
        ("[merge]\nmethod = 'x'", r"s.toml has no table \[train\]"),
    ],
)  # fmt: skip
def test_mistakes_in_settings_are_one_sentence_each(tmp_path, text, sentence):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(RecipeError, match=sentence):
        load_train_settings(tmp_path / "s.toml")


def test_overrides_are_checked_with_the_rest(tmp_path):
    (tmp_path / "s.toml").write_text("[train]\nmodel = 'm'\ndata = 'd'\nobjective = 'sft'\n")
    assert load_train_settings(tmp_path / "s.toml", data="other").data == "other"
    with pytest.raises(TrainingError, match="batch_tokens"):
        load_train_settings(tmp_path / "s.toml", batch_rows=3, batch_tokens=3)
