"""The objectives, row by row.

log pi and log ref are sums of log-probabilities over completion tokens, under policy and reference. With h = [log pi -
log ref](chosen) - [log pi - log ref](rejected), where each term is a mean over its tokens instead of a sum
if ``length_normalized`` is set:

- dpo:   -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h), e the label smoothing
         (Rafailov et al. 2023; e: Mitchell 2023; length-normalised: Tulu 3, Lambert et al. 2024)
- ipo:   (h - 1 / (2 beta))^2 (Azar et al. 2023, equation 17)
- simpo: the same as dpo with beta h - gamma, ref = 0 and means over tokens (Meng et al. 2024)

To each of them, nll_weight times the mean negative log-probability of the chosen answer's tokens is added (Pang et al.
2024). The loss of SFT is the negative log-probability of the trained tokens. A batch's loss is the sum over its rows,
divided by the number of rows (preference) or of trained tokens (SFT) in the whole step.
"""

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from schemas.recipe.training import TrainSettings

PREFERENCE_FIELDS = (
    "loss",
    "accuracy",
    "margin",
    "chosen_reward",
    "rejected_reward",
    "chosen_logp",
    "rejected_logp",
    "chosen_nll",
    "kl",
)
"""The metrics of a pair. A tie counts half for the accuracy, which therefore starts at 0.5. Rewards are beta times the
log-ratio to the reference (SimPO: the mean log-probability). Logps are sums over tokens. ``kl`` is the mean of (log pi
- log ref)^2 / 2 over both answers' tokens, which estimates the divergence per token on the data (Schulman's k2);
0 without a reference."""

SFT_FIELDS = ("loss",)


@dataclass(frozen=True, slots=True)
class Rows:
    """``losses`` of rows [R], with gradient; ``values`` of metrics [R, fields]; the rows' ``weights`` in means [R]."""

    losses: Tensor
    values: Tensor
    weights: Tensor


def sft_rows(logps: Tensor, sides: Tensor, num_rows: int) -> Rows:
    """Return the losses and metrics of SFT rows; weights are numbers of trained tokens, values are sums over them.

    ``logps`` and ``sides`` [targets] are the log-probabilities and the rows of the targets.
    """
    losses = -logps.new_zeros(num_rows).index_add(0, sides, logps)
    weights = torch.bincount(sides, minlength=num_rows).to(losses.dtype)
    return Rows(losses, losses.detach()[:, None], weights)


def preference_rows(
    settings: TrainSettings, logps: Tensor, reference: Tensor | None, sides: Tensor, num_rows: int
) -> Rows:
    """Return the losses and metrics of the rows of a preference objective; all weights are 1.

    Args:
        settings: the objective and its hyperparameters.
        logps: log-probabilities of all completion tokens under the policy, [targets].
        reference: the same under the reference model, or None for SimPO.
        sides: the branch of each target, [targets]: 2r is row r's chosen answer, 2r + 1 its rejected one.
        num_rows: the number of pairs.
    """
    assert (reference is not None) == settings.needs_reference
    counts = torch.bincount(sides, minlength=2 * num_rows).to(logps.dtype).view(num_rows, 2)
    sums = _sum(logps, sides, num_rows)
    ratios = sums if reference is None else sums - _sum(reference, sides, num_rows)
    if settings.length_normalized or settings.objective == "simpo":
        ratios = ratios / counts
    gap = ratios[:, 0] - ratios[:, 1]
    losses = _pair_losses(settings, gap)
    nll = -sums[:, 0] / counts[:, 0]
    if settings.nll_weight:
        losses = losses + settings.nll_weight * nll
    with torch.no_grad():
        rewards = settings.beta * ratios.detach()
        accuracy = (torch.sign(gap) + 1) / 2
        columns = [losses, accuracy, rewards[:, 0] - rewards[:, 1], *rewards.T, *sums.T, nll]
        drift = torch.zeros_like(gap)
        if reference is not None:
            squares = _sum((logps.detach() - reference).square() / 2, sides, num_rows)
            drift = squares.sum(1) / counts.sum(1)
        values = torch.stack([*(column.detach() for column in columns), drift], dim=1)
    return Rows(losses, values, torch.ones_like(gap))


def _pair_losses(settings: TrainSettings, gap: Tensor) -> Tensor:
    beta, smoothing = settings.beta, settings.label_smoothing
    match settings.objective:
        case "ipo":
            return (gap - 1 / (2 * beta)).square()
        case "simpo":
            logits = beta * gap - settings.gamma
        case "dpo":
            logits = beta * gap
        case "sft":
            raise ValueError("sft has no pairs")
        case _:
            assert_never(settings.objective)
    return -(1 - smoothing) * logsigmoid(logits) - smoothing * logsigmoid(-logits)


def _sum(values: Tensor, sides: Tensor, num_rows: int) -> Tensor:
    """Return the sums of ``values`` [targets] by branch, [rows, 2]."""
    return values.new_zeros(2 * num_rows).index_add(0, sides, values).view(num_rows, 2)
