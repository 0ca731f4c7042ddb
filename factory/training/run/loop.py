"""The training loop: the steps, what is recorded after each of them, and the model at the end."""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from factory.training.curves import plot_curves, read_metrics
from factory.training.identity import RunIdentity, claim_output
from factory.training.lock import hold_output
from factory.training.processes import World, join_world
from factory.training.result import TrainResult, read_result, write_result
from factory.training.run.checkpoints import load_checkpoint, save_checkpoint
from factory.training.run.metrics import MetricLog
from factory.training.run.optimization import learning_rate_at, seed_torch, set_learning_rate
from factory.training.run.optimizer_step import Stepper, StepResult
from factory.training.run.preparation import Prepared, prepare
from factory.training.run.progress_line import Watch
from factory.training.run.saving import gather_weights, write_model
from factory.training.stopping import StopSignals
from schemas.errors import TrainingError
from schemas.recipe.training import TrainSettings

SMOOTHED_STEPS = 10


def run_training(settings: TrainSettings, identity: RunIdentity, output: Path, *, quiet: bool) -> TrainResult:
    """Train in this process, which may be one of several in the run.

    If another run completes the same training while this one waits for the folder, its result is returned.
    """
    with join_world(settings.run) as world, hold_output(output, world):
        done = read_result(output, identity)
        if done is not None:
            return done
        claim_output(output, identity, writes=world.is_main)
        quiet = quiet or not world.is_main
        run = Run(settings, output, world, prepare(settings, identity, output, world, quiet=quiet))
        with (
            MetricLog(
                output, after_step=run.progress.step, tensorboard=settings.run.tensorboard, writes=world.is_main
            ) as log,
            Watch(settings.objective, len(run.steps), done=run.progress.step, quiet=quiet) as watch,
            StopSignals() as signals,
        ):
            metrics = run.loop(log, watch, signals)
        return run.finish(identity.id, metrics)


class Run:
    """One run, from its first step to the final model."""

    def __init__(self, settings: TrainSettings, output: Path, world: World, prepared: Prepared) -> None:
        self._settings, self._output, self._world, self._prepared = settings, output, world, prepared
        self._stepper = Stepper(prepared.policy, settings, world)
        self._checkpoints = output / "checkpoints"
        self.progress, self.steps = prepared.progress, prepared.steps

    def loop(self, log: MetricLog, watch: Watch, signals: StopSignals) -> dict[str, object]:
        """Run the remaining steps; return the metrics of the last one.

        Raises:
            TrainingError: the loss is not finite or diverges, a checkpoint cannot be written, or a signal came.
        """
        num_steps, before = len(self.steps), self.progress
        metrics: dict[str, Any] = {}
        if before.step == 0 and (held_out := self._hold_out(0, log)):
            self.progress = replace(before, first_loss=held_out["loss"])
        started = time.monotonic()
        for step in range(before.step + 1, num_steps + 1):
            rate = learning_rate_at(step, num_steps, self._settings)
            result = self._step(step, rate)
            seconds = time.monotonic() - started
            self._count(step, result, before.seconds + seconds)
            speed = (self.progress.num_tokens - before.num_tokens) / seconds
            metrics = result.metrics | {"learning_rate": rate, "grad_norm": result.grad_norm}
            metrics |= {"tokens_per_second": speed, "num_tokens": self.progress.num_tokens}
            if step % self._settings.run.log_every == 0 or step == num_steps:
                log.write("train", step, metrics)
            watch.advance(step, metrics, speed, seconds / (step - before.step) * (num_steps - step))
            self._after_step(step, log, watch, signals)
        return metrics

    def finish(self, run_id: str, metrics: dict[str, object]) -> TrainResult:
        """Write the final model, the curves and the result."""
        settings, progress, prepared = self._settings, self.progress, self._prepared
        kept = (progress.best_step or progress.step) if settings.final == "best" else progress.step
        if kept != progress.step:
            load_checkpoint(self._checkpoints / f"step-{kept:07d}", prepared.policy, None, self._world)
        weights = gather_weights(prepared.policy, settings, self._world)
        evaluations = {line["step"]: line for line in read_metrics(self._output) if line["split"] == "eval"}
        result = TrainResult(
            run_id=run_id,
            model=self._output / "model",
            num_steps=progress.step,
            num_tokens=progress.num_tokens,
            num_rows=len(prepared.train.examples),
            num_cut=prepared.train.num_cut,
            rejected=prepared.train.count_rejected(),
            seconds=progress.seconds,
            metrics=metrics,
            eval_metrics=evaluations.get(kept, {}),
            best_step=progress.best_step,
            num_others=prepared.train.num_others,
        )
        if self._world.is_main:
            write_model(prepared.policy, weights, settings, self._output / "tokenizer", result.model)
            if settings.run.plot:
                plot_curves(self._output)
            write_result(self._output, result)
        self._world.wait()
        return result

    def _step(self, step: int, rate: float) -> StepResult:
        policy, optimizer = self._prepared.policy, self._prepared.optimizer
        seed_torch(self._settings.seed, step, self._world.rank)  # reseeding makes saving the random state unnecessary
        result = self._stepper.accumulate(self._prepared.train, self.steps[step - 1])
        self._refuse_bad(result, step)
        set_learning_rate(optimizer, rate)
        optimizer.step()
        optimizer.zero_grad(set_to_none=policy.is_sharded)
        return result

    def _refuse_bad(self, result: StepResult, step: int) -> None:
        """Raise a TrainingError before an update that would ruin the weights."""
        if not (math.isfinite(result.loss) and math.isfinite(result.grad_norm)):
            rows = ", ".join(result.worst_rows(self._world))
            raise TrainingError(
                f"step {step} has loss {result.loss} and gradient norm {result.grad_norm}, caused by the rows {rows}"
            )
        first, smoothed = self.progress.first_loss, self._smooth(result.loss)
        factor = self._settings.divergence_factor
        if first is not None and smoothed > factor * first:
            rows = ", ".join(result.worst_rows(self._world))
            raise TrainingError(
                f"the run diverges: at step {step} the smoothed loss is {smoothed:.4g}, more than {factor:g} times the "
                f"initial loss ({first:.4g}); the rows with the highest losses of step {step} are {rows}; lower "
                "learning_rate or max_grad_norm, or raise divergence_factor if the first rows were easy"
            )

    def _smooth(self, loss: float) -> float:
        """Return the moving average over about ``SMOOTHED_STEPS`` losses, as a single bad batch is not a divergence."""
        before = self.progress.smoothed_loss
        return loss if before is None else before + (loss - before) / SMOOTHED_STEPS

    def _count(self, step: int, result: StepResult, seconds: float) -> None:
        self.progress = replace(
            self.progress,
            step=step,
            num_tokens=self.progress.num_tokens + result.num_tokens,
            first_loss=max(result.loss, self.progress.first_loss or 0) if step == 1 else self.progress.first_loss,
            smoothed_loss=self._smooth(result.loss),
            seconds=seconds,
        )

    def _after_step(self, step: int, log: MetricLog, watch: Watch, signals: StopSignals) -> None:
        """Evaluate and write a checkpoint if they are due, and stop if a signal came."""
        settings, is_last = self._settings, step == len(self.steps)
        every, is_best = settings.run.checkpoint_every, False
        if is_last or (settings.eval_every and step % settings.eval_every == 0):
            is_best = self._evaluate(step, log, watch)
        is_due = every is not None and step % every == 0
        asked = signals.asked(self._world)
        if is_last:
            return
        if is_due or asked or (is_best and (every is not None or settings.final == "best")):
            optimizer, keep = self._prepared.optimizer, settings.run.keep_last
            save_checkpoint(self._checkpoints, self.progress, self._prepared.policy, optimizer, self._world, keep)
        if asked:
            total = len(self.steps)
            raise TrainingError(
                f"{asked} stopped the run after step {step} of {total}; the same command resumes from there"
            )

    def _evaluate(self, step: int, log: MetricLog, watch: Watch) -> bool:
        """Evaluate if there is held-out data; return whether the loss is the lowest so far."""
        found = self._hold_out(step, log)
        if found is None:
            return False
        shown = [f"{name} {found[name]:.4f}" for name in ("loss", "accuracy", "margin", "kl") if name in found]
        watch.say(f"step {step}, held out: {', '.join(shown)}")
        best = self.progress.best_loss
        if best is not None and found["loss"] >= best:
            return False
        self.progress = replace(self.progress, best_step=step, best_loss=found["loss"])
        return True

    def _hold_out(self, step: int, log: MetricLog) -> dict[str, Any] | None:
        """Evaluate on the held-out data, log the metrics and return them; None if there is no such data."""
        if self._prepared.held_out is None:
            return None
        found: StepResult = self._stepper.evaluate(self._prepared.held_out)
        if not math.isfinite(found.loss):
            rows = ", ".join(found.worst_rows(self._world))
            raise TrainingError(f"after step {step} the held-out loss is {found.loss}, caused by the rows {rows}")
        log.write("eval", step, found.metrics)
        return found.metrics
