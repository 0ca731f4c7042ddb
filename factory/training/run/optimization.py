"""The optimizer, and its learning rate as a pure function of the step."""

import math
from collections.abc import Iterable
from itertools import groupby

import numpy as np
import torch
from torch import nn

from schemas.recipe.training import TrainSettings


def make_optimizer(parameters: Iterable[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Return AdamW. Weight decay applies to matrices only, not to norms and biases (parameters of one dimension)."""
    trained = sorted(parameters, key=lambda parameter: parameter.ndim > 1)
    groups = [
        {"params": list(members), "weight_decay": settings.weight_decay if is_matrix else 0.0}
        for is_matrix, members in groupby(trained, key=lambda parameter: parameter.ndim > 1)
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, eps=settings.epsilon, fused=True)


def learning_rate_at(step: int, num_steps: int, settings: TrainSettings) -> float:
    """Return the learning rate of a step, counted from 1, of ``num_steps``.

    It rises linearly during warm-up, reaching the full rate in the last warm-up step, then decays towards
    ``min_learning_rate_ratio`` of the full rate, which it would reach one step after the last.
    """
    warmup = math.ceil(settings.warmup_ratio * num_steps) if settings.warmup_steps is None else settings.warmup_steps
    if step <= warmup:
        return settings.learning_rate * step / warmup
    share = (step - warmup - 1) / max(1, num_steps - warmup)
    match settings.schedule:
        case "constant":
            height = 1.0
        case "linear":
            height = 1.0 - share
        case "cosine":
            height = (1.0 + math.cos(math.pi * share)) / 2
    floor = settings.min_learning_rate_ratio
    return settings.learning_rate * (floor + (1.0 - floor) * height)


def seed_torch(*numbers: int) -> None:
    """Seed torch's random generators with a combination of integers of any size."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = value
