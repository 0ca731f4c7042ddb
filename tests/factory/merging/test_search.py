"""The search for weights, its memory, and what each parent adds."""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from factory.merging.merge import merge
from factory.merging.search import EVALUATIONS, Evaluator, command_fitness, leave_one_out, search_weights, with_weights
from schemas.errors import InputError
from schemas.recipe.merging import MergeSettings
from tests.factory.merging.conftest import read_weights

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def settings(make) -> MergeSettings:
    models = [
        {"model": str(make(name, seed=seed, dtype=torch.float32)), "name": name} for seed, name in enumerate("abc")
    ]
    return MergeSettings.model_validate({"models": models})


class Distance:
    """A fitness with a known optimum: how near a merge is to a mixture that was made by hand."""

    def __init__(self, settings: MergeSettings, shares: tuple[float, ...]) -> None:
        tensors = [read_weights(Path(model.model))[NAME] for model in settings.models]
        self.target = sum(share * tensor for share, tensor in zip(shares, tensors, strict=True))
        self.num_calls = 0

    def __call__(self, folder: Path) -> float:
        self.num_calls += 1
        return -float((read_weights(folder)[NAME] - self.target).square().mean())


def test_it_finds_the_mixture(settings, tmp_path):
    best = search_weights(
        Evaluator(
            settings, Distance(settings, (0.2, 0.7, 0.1)), tmp_path / "search", fitness_name="distance", merge=merge
        ),
        num_evaluations=150,
    )
    assert np.array(best.weights) / sum(best.weights) == pytest.approx([0.2, 0.7, 0.1], abs=0.03)
    assert best.fitness > -1e-3
    assert sum(best.weights) == pytest.approx(3)


def test_singles_and_the_uniform_merge_come_first(settings, tmp_path):
    search_weights(
        Evaluator(settings, Distance(settings, (1, 0, 0)), tmp_path / "search", fitness_name="distance", merge=merge),
        num_evaluations=10,
    )
    _, *lines = (tmp_path / "search" / EVALUATIONS).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["label"] for row in rows[:5]] == ["uniform", "single 0", "single 1", "single 2", "generation 0.0"]
    assert rows[1]["weights"] == [3.0, 0.0, 0.0]
    assert rows[1]["fitness"] == 0.0
    assert len(rows) == 10
    assert not (tmp_path / "search/candidate").exists()


def test_a_single_that_is_best_is_what_is_returned(settings, tmp_path):
    best = search_weights(
        Evaluator(settings, Distance(settings, (0, 0, 1)), tmp_path / "search", fitness_name="distance", merge=merge),
        num_evaluations=20,
    )
    assert best.label == "single 2"


class StoppedError(Exception):
    pass


def test_a_stopped_search_goes_on_to_the_same_end(settings, tmp_path):
    fitness = Distance(settings, (0.3, 0.3, 0.4))
    whole = search_weights(
        Evaluator(settings, fitness, tmp_path / "whole", fitness_name="distance", merge=merge), num_evaluations=40
    )
    num_calls = fitness.num_calls

    def stops(folder: Path) -> float:
        if fitness.num_calls == num_calls + 17:
            raise StoppedError
        return fitness(folder)

    with pytest.raises(StoppedError):
        search_weights(
            Evaluator(settings, stops, tmp_path / "parts", fitness_name="distance", merge=merge), num_evaluations=40
        )
    with (tmp_path / "parts" / EVALUATIONS).open("a") as file:
        file.write('{"label": "half a li')
    again = search_weights(
        Evaluator(settings, fitness, tmp_path / "parts", fitness_name="distance", merge=merge), num_evaluations=40
    )
    assert again == whole
    assert fitness.num_calls == 2 * num_calls
    assert (tmp_path / "parts" / EVALUATIONS).read_text() == (tmp_path / "whole" / EVALUATIONS).read_text()
    search_weights(
        Evaluator(settings, Distance(settings, (1, 1, 1)), tmp_path / "parts", fitness_name="distance", merge=merge),
        num_evaluations=40,
    )
    assert fitness.num_calls == 2 * num_calls


def test_numpys_random_state_is_left_alone(settings, tmp_path):
    np.random.seed(5)
    wanted = np.random.rand()
    np.random.seed(5)
    search_weights(
        Evaluator(settings, Distance(settings, (1, 0, 0)), tmp_path / "search", fitness_name="distance", merge=merge),
        num_evaluations=8,
    )
    assert np.random.rand() == wanted


@pytest.mark.parametrize("other", ["dtype", "weights", "fitness"])
def test_evaluations_of_other_models_settings_or_fitness_are_refused(settings, tmp_path, other):
    fitness, name = Distance(settings, (1, 0, 0)), "distance"
    search_weights(Evaluator(settings, fitness, tmp_path / "search", fitness_name=name, merge=merge), num_evaluations=4)
    if other == "dtype":
        settings = settings.model_copy(update={"dtype": "bfloat16"})
    elif other == "weights":
        weights = read_weights(Path(settings.models[1].model))
        save_file(weights | {NAME: weights[NAME] + 1}, Path(settings.models[1].model) / "model.safetensors")
    else:
        name = "another command"
    with pytest.raises(
        InputError, match=r"contains the evaluations of other models, settings or another fitness; choose"
    ):
        search_weights(
            Evaluator(settings, fitness, tmp_path / "search", fitness_name=name, merge=merge), num_evaluations=4
        )


def test_a_search_goes_on_where_its_models_have_been_moved(settings, tmp_path):
    fitness = Distance(settings, (1, 0, 0))
    search_weights(
        Evaluator(settings, fitness, tmp_path / "search", fitness_name="distance", merge=merge), num_evaluations=4
    )
    place = Path(settings.models[0].model)
    first = settings.models[0].model_copy(update={"model": str(place.rename(tmp_path / "moved"))})
    settings = settings.model_copy(update={"models": (first, *settings.models[1:])})
    search_weights(
        Evaluator(settings, fitness, tmp_path / "search", fitness_name="distance", merge=merge), num_evaluations=4
    )
    assert fitness.num_calls == 4


def test_a_file_that_holds_no_evaluations_is_refused(settings, tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / EVALUATIONS).write_text("nonsense\n")
    with pytest.raises(InputError, match="is not a file of evaluations"):
        search_weights(
            Evaluator(settings, lambda _: 0.0, tmp_path / "search", fitness_name="zero", merge=merge), num_evaluations=4
        )


def test_leave_one_out_is_the_difference_that_each_makes(settings, tmp_path):
    """With fitness of the shares 0.5, 0.5, 0 the third parent does harm."""
    fitness = Distance(settings, (0.5, 0.5, 0.0))
    table = leave_one_out(Evaluator(settings, fitness, tmp_path / "loo", fitness_name="distance", merge=merge))
    assert [row.model for row in table] == ["a", "b", "c"]
    assert table[2].adds < 0 < min(table[0].adds, table[1].adds)
    assert table[2].fitness_without == pytest.approx(0, abs=1e-12)
    assert leave_one_out(Evaluator(settings, fitness, tmp_path / "loo", fitness_name="distance", merge=merge)) == table
    assert fitness.num_calls == 4


def test_a_model_of_weight_zero_is_out_whatever_its_patterns_say(settings, tmp_path):
    models = tuple(model.model_copy(update={"patterns": {"mlp": 1.0}}) for model in settings.models)
    patterned = settings.model_copy(update={"models": models})
    changed = with_weights(patterned, (0.0, 2.0, 1.0))
    assert [(model.weight, model.patterns) for model in changed.models] == [
        (0.0, {}),
        (2.0, {"mlp": 1.0}),
        (1.0, {"mlp": 1.0}),
    ]


def script(text: str) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(text)}"


def test_a_command_may_be_the_fitness(tmp_path):
    folder = tmp_path / "a folder with blanks"
    folder.mkdir()
    (folder / "config.json").write_text("12345")
    text = "import sys, os; print('loading'); print(os.path.getsize(sys.argv[1] + '/config.json'))"
    assert command_fitness(script(text))(folder) == 5.0
    assert command_fitness(script(text) + " {model} ignored")(folder) == 5.0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("raise SystemExit('no GPU')", "the fitness command exited with status 1: no GPU"),
        ("print('good')", "the fitness command's last line is 'good', but must be a number"),
        ("pass", "the fitness command's last line is '', but must be a number"),
    ],
)
def test_a_command_that_fails(text, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        command_fitness(script(text))(tmp_path)


def test_a_fitness_that_is_no_number(settings, tmp_path):
    with pytest.raises(InputError, match="it must be a finite number"):
        search_weights(
            Evaluator(settings, lambda _: float("nan"), tmp_path / "search", fitness_name="distance", merge=merge),
            num_evaluations=4,
        )
