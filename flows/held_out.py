"""The evaluation that a recipe asks for: two models on its build's held-out prompts, before its judge."""

from schemas.errors import RecipeError
from schemas.recipe.evaluation import Contestant, EvaluationSettings, Judge
from schemas.recipe.policy import HeldOut
from schemas.recipe.recipe import Recipe


def choose_judge(recipe: Recipe) -> Judge:
    """Return whom the recipe's policy names as judge, or the recipe's first reward model."""
    named = recipe.policy.held_out.judge if recipe.policy else None
    return named or Judge(reward=recipe.reward_models[0])


def make_contestant(recipe: Recipe, name: str, model: str) -> Contestant:
    """Return a model as it answers held-out prompts: as the recipe's policy says, if it has one."""
    held_out, policy = _held_out(recipe), recipe.policy
    answering = ("chat_template_kwargs", "engine_args", "reasoning", "run")
    own = {field: getattr(policy, field) for field in answering} if policy else {}
    return Contestant(name=name, model=model, samples=held_out.samples, sampling=held_out.sampling, **own)


def _held_out(recipe: Recipe) -> HeldOut:
    return recipe.policy.held_out if recipe.policy else HeldOut()


def make_evaluation(
    recipe: Recipe, build_id: str, name: str, a: tuple[str, str], b: tuple[str, str]
) -> EvaluationSettings:
    """Return the settings of an evaluation; ``a`` and ``b`` are a name and a model each.

    Raises:
        RecipeError: both have the same name.
    """
    if a[0] == b[0]:
        raise RecipeError(f"both models are named {a[0]!r}; give them different names or folders")
    held_out = _held_out(recipe)
    return EvaluationSettings(
        name=name,
        a=make_contestant(recipe, *a),
        b=make_contestant(recipe, *b),
        languages=recipe.languages,
        build=build_id,
        limit=held_out.limit,
        judge=choose_judge(recipe),
        reward=recipe.reward_models[0],
        bootstrap_rounds=held_out.bootstrap_rounds,
        run=recipe.run,
    )
