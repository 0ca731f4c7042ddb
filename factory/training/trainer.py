"""The trainer: settings in, a model that can be served out.

output/run.json          what identifies the run; another run is refused here
output/rejected.jsonl    rows that could not be used, each with its reason
output/metrics.jsonl     every step and evaluation; tensorboard/ and curves.png show the same
output/checkpoints/      what a killed run goes on from
output/model/            the final model: safetensors, tokenizer, template, generation config
output/result.json       written last: the run is complete, and is not run again
"""

from pathlib import Path

from factory.loading import loading
from factory.training.identity import identify_run, pin_data
from factory.training.result import TrainResult, read_result
from schemas.errors import TrainingError
from schemas.recipe.training import TrainSettings


def train(settings: TrainSettings, output: Path, *, quiet: bool = False) -> TrainResult:
    """Train a model, or go on with it; a run that is complete is returned as it is.

    Raises:
        TrainingError: settings, model and data do not fit, another run lies or works in ``output``, a file cannot be
            written, the loss is not a number or runs away, or a signal stopped the run (its state is saved then).
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
            from factory.training.run.loop import run_training  # with torch and transformers: seconds

        return run_training(settings, identity, output, quiet=quiet)
    except OSError as error:
        raise TrainingError(f"the run in {output} stopped: {error}") from error
