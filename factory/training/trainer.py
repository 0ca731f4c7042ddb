"""The trainer's entry point: from settings to a model that can be served.

output/run.json          the run's identity; a different run is refused in the same folder
output/rejected.jsonl    rows that could not be used, with reasons
output/metrics.jsonl     metrics of steps and evaluations; tensorboard/ and curves.png show the same
output/checkpoints/      checkpoints from which a stopped run resumes
output/model/            the final model: safetensors, tokenizer, chat template, generation config
output/result.json       written last: the run is complete and will not be repeated
"""

from pathlib import Path

from factory.loading import loading
from factory.training.identity import identify_run, pin_data
from factory.training.result import TrainResult, read_result
from schemas.errors import TrainingError
from schemas.recipe.training import TrainSettings


def train(settings: TrainSettings, output: Path, *, quiet: bool = False) -> TrainResult:
    """Train a model, or resume an unfinished run; the result of a complete run is returned at once.

    Raises:
        TrainingError: settings, model and data do not match, ``output`` contains or is used by another run, a file
            cannot be written, the loss is not finite or diverges, or a signal stopped the run (its state is then saved).
        InputError: the data cannot be read.
        EngineError: the model is missing.
    """
    try:
        settings = pin_data(settings)
        identity = identify_run(settings)
        done = read_result(output, identity)
        if done is not None:
            return done
        with loading():
            from factory.training.run.loop import run_training  # imports torch and transformers, which takes seconds

        return run_training(settings, identity, output, quiet=quiet)
    except OSError as error:
        raise TrainingError(f"the run in {output} stopped: {error}") from error
