"""The ``factory`` command. Heavy modules are imported by the commands that need them: ``--help`` stays instant."""

import os
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from factory.interrupts import heed_interrupts
from flows.home import provide_home
from schemas.errors import BuildStoppedError, FactoryError

if TYPE_CHECKING:
    from schemas.recipe.recipe import Recipe
    from schemas.recipe.settings import WarehouseSettings

MAX_LIMIT = 1_000_000_000
"""More prompts than any source has; a limit above it is a slip."""

MAX_SNAPSHOT = 2**63 - 1
"""DuckLake numbers its snapshots with 64 bits."""

STOPPED = 130
"""The exit code of a command that Ctrl-C has stopped; as shells have it, 128 and the number of the signal."""


class DefaultGroup(TyperGroup):
    """Commands of which `run` is meant where none is named."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override] # its own has no public name
        named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named or not args else ["run", *args])


app = typer.Typer(
    name="factory",
    help="Build multilingual post-training data: prompts in, versioned training shards out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a TOML file.", show_default=False)]
OptionalRecipe = Annotated[
    Path | None,
    typer.Option("--recipe", help="A recipe: its warehouse is meant, wherever it lies."),
]
WarehouseFolder = Annotated[Path, typer.Option("--warehouse", help="The folder of a local warehouse.")]
AsOf = Annotated[
    int | None, typer.Option("--as-of", min=0, max=MAX_SNAPSHOT, help="Look at the warehouse as of this snapshot.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, max=MAX_LIMIT, help="Only the first N prompts of each source.")
]
BuildName = Annotated[
    str | None, typer.Option("--build", help="A build's name or config id (its beginning will do); default: latest.")
]


def main() -> None:
    """Run the command line; a mistake that the user can mend is one sentence, not a traceback."""
    heed_interrupts()
    try:
        app()
    except FactoryError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(128 + error.number if isinstance(error, BuildStoppedError) else 1)
    except SystemExit as ending:
        if isinstance(ending.__context__, BrokenPipeError):  # who read our output has seen enough, such as `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        if ending.code == STOPPED:  # what typer makes of Ctrl-C
            print("stopped; what was answered is committed, and the same command goes on from there", file=sys.stderr)
        if ending.code:
            raise


@app.callback()
def prepare(context: typer.Context) -> None:
    """Build multilingual post-training data: prompts in, versioned training shards out."""
    context.obj = provide_home()


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write the recipe.")] = Path("recipe.toml"),
    template: Annotated[str, typer.Option(help="starter, microworld or aya_expanse.")] = "starter",
) -> None:
    """Write a commented recipe to start from."""
    from flows.recipes.write import write_recipe

    write_recipe(path, template)
    print(f"wrote {path}; next: factory plan {quote(str(path))}")


@app.command()
def plan(recipe: RecipePath, limit: Limit = None) -> None:
    """Show what a run would send: requests by stage, model and language, and what is answered already."""
    from flows.build.plan import print_plan

    print_plan(_load(recipe), limit=limit)


@app.command()
def run(
    recipe: RecipePath,
    until: Annotated[str | None, typer.Option(help="Stop after this stage, or this step of the policy.")] = None,
    limit: Limit = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Run a recipe, or go on with it: what is answered is never asked again."""
    from flows import api

    summary = api.run(_load(recipe), until=until, limit=limit, quiet=quiet)
    if not quiet:
        from flows.status import print_summary

        print_summary(summary)


@app.command()
def retry(
    recipe: RecipePath,
    reason: Annotated[list[str], typer.Option("--reason", help="A final reason to forget, such as poison.")],
) -> None:
    """Forget final failures with these reasons, so that the next run sends their requests again."""
    from flows.build.retry import forget_failures

    print(forget_failures(_load(recipe), reason))


@app.command()
def status(warehouse: WarehouseFolder = Path("lake"), recipe: OptionalRecipe = None, build: BuildName = None) -> None:
    """Show the builds of a warehouse and the counts of one of them."""
    from flows.status import print_status

    print_status(_warehouse(recipe, warehouse), build)


@app.command()
def report(
    warehouse: WarehouseFolder = Path("lake"),
    recipe: OptionalRecipe = None,
    build: BuildName = None,
    evaluation: Annotated[
        list[Path] | None, typer.Option("--evaluation", help="Show these figures of `evaluate winrate` too.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the page to this file.")] = Path("report.html"),
) -> None:
    """Write one HTML page about a build and its policy: steps, win rates, teachers, curves, costs, pairs."""
    from flows.report.page import write_report

    print(write_report(_warehouse(recipe, warehouse), build, output, evaluations=evaluation or ()))


@app.command()
def sql(
    query: Annotated[
        str | None, typer.Argument(help="One SELECT; `-` or a pipe: from stdin; none: interactive.")
    ] = None,
    output_format: Annotated[str, typer.Option("--format", "-f", help="table, json, csv or parquet.")] = "table",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    warehouse: WarehouseFolder = Path("lake"),
    recipe: OptionalRecipe = None,
    build: BuildName = None,
    as_of: AsOf = None,
) -> None:
    """Query the warehouse, read-only: tables, and views of one build such as candidates and arbitrage."""
    from flows.sql import answer

    answer(_warehouse(recipe, warehouse), query, output_format, output, build=build, as_of=as_of)


exports = typer.Typer(cls=DefaultGroup, help="Write training shards: factory export RECIPE.", no_args_is_help=True)
app.add_typer(exports, name="export")

ExportName = Annotated[
    str, typer.Argument(help="An export: its folder, its version such as v0001, or its id.", show_default=False)
]


@exports.command("run")
def export(
    recipe: RecipePath,
    snapshot: Annotated[
        int | None, typer.Option("--as-of", min=0, max=MAX_SNAPSHOT, help="Export this snapshot.")
    ] = None,
    push: Annotated[str | None, typer.Option(help="Push to this dataset of the Hugging Face hub.")] = None,
) -> None:
    """Write the training shards of a build: what is in the warehouse now, or was at a snapshot; `run` may be left out."""
    from flows.build.export import export_recipe

    print(export_recipe(_load(recipe), snapshot=snapshot, push=push))


@exports.command("diff")
def export_diff(
    before: ExportName, after: ExportName, warehouse: WarehouseFolder = Path("lake"), recipe: OptionalRecipe = None
) -> None:
    """Show which rows were added, removed and changed from one export to another, by config, split and language."""
    from flows.build.export_diff import print_diff

    print_diff(before, after, _warehouse(recipe, warehouse), _load(recipe).name if recipe else None)


@app.command()
def schedule(
    recipe: RecipePath,
    cron: Annotated[str, typer.Option(help='When to run, such as "0 2 * * *".')],
    timezone: Annotated[str, typer.Option(help="The cron's time zone.")] = "UTC",
) -> None:
    """Make the recipe a deployment on the Prefect server, scheduled, and serve it from here."""
    from flows.prefect_settings import find_url

    find_url()  # refuses settings that Prefect does not allow, before all else imports Prefect
    from flows.orchestration.deployments import serve

    serve(_load(recipe), recipe.resolve(), cron=cron, timezone=timezone)


@app.command()
def doctor(context: typer.Context, recipe: OptionalRecipe = None) -> None:
    """Check GPUs, engines, extensions, disk and keys, and say what to do about the rest."""
    from flows.doctor.checkup import print_checkup

    sys.exit(0 if print_checkup(_load(recipe) if recipe else None, context.obj) else 1)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo's warehouse and exports go.")] = Path("build/demo"),
    fresh: Annotated[bool, typer.Option("--fresh/--resume", help="Start over, or go on.")] = True,
) -> None:
    """Run the whole spine over the microworld and show what arbitrage chose."""
    from flows.demo import run_demo

    run_demo(folder, fresh=fresh)


@app.command()
def train(
    file: Annotated[Path, typer.Argument(help="A TOML file with a [train] table.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="The run's folder: metrics, checkpoints, model.", show_default=False)],
    model: Annotated[str | None, typer.Option(help="Train this model instead of the file's.")] = None,
    data: Annotated[str | None, typer.Option(help="Train on this export, file or dataset instead.")] = None,
    warehouse: Annotated[
        Path | None,
        typer.Option("--warehouse", help="Record the checkpoint in this warehouse; default: lake, if it exists."),
    ] = None,
    recipe: OptionalRecipe = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Train a model (SFT, DPO, IPO, SimPO), or go on with it: the same command resumes a stopped run."""
    from flows.models.train import run_training

    place = _recorded_in(recipe, warehouse)
    run_training(file, output, warehouse=place, quiet=quiet, model=model, data=data)


merges = typer.Typer(
    cls=DefaultGroup, help="Merge checkpoints into one: factory merge FILE OUTPUT.", no_args_is_help=True
)
app.add_typer(merges, name="merge")

MergeFile = Annotated[Path, typer.Argument(help="A TOML file with a [merge] table.", show_default=False)]
MergeOutput = Annotated[Path, typer.Argument(help="The folder to write; it must not exist.", show_default=False)]
FitnessCommand = Annotated[
    str, typer.Option("--fitness", help="Prints how good the model in the folder {model} is; higher is better.")
]
SearchFolder = Annotated[Path, typer.Option("--evaluations", help="Where evaluations are kept, to go on from.")]
OptionalFolder = Annotated[
    Path | None,
    typer.Option("--warehouse", help="Record the checkpoint in this warehouse; default: lake, if it exists."),
]


@merges.command("run")
def merge(
    file: MergeFile,
    output: MergeOutput,
    warehouse: OptionalFolder = None,
    recipe: OptionalRecipe = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Merge checkpoints into one; `run` may be left out."""
    from flows.models.merge import run_merge

    run_merge(file, output, warehouse=_recorded_in(recipe, warehouse), quiet=quiet)


@merges.command("search")
def merge_search(
    file: MergeFile,
    output: MergeOutput,
    fitness: FitnessCommand,
    evaluations: SearchFolder = Path("merge-search"),
    number: Annotated[int, typer.Option("--num-evaluations", min=1, help="How many merges to score in all.")] = 100,
    warehouse: OptionalFolder = None,
    recipe: OptionalRecipe = None,
) -> None:
    """Search for the weights of the best merge, by CMA-ES, and write it; the same command goes on after a stop."""
    from flows.models.merge import run_search

    place = _recorded_in(recipe, warehouse)
    run_search(file, output, fitness, folder=evaluations, num_evaluations=number, warehouse=place)


@merges.command("leave-one-out")
def merge_leave_one_out(
    file: MergeFile, fitness: FitnessCommand, evaluations: SearchFolder = Path("merge-search")
) -> None:
    """Show what each parent adds to the merge, or costs it."""
    from flows.models.merge import run_leave_one_out

    run_leave_one_out(file, fitness, folder=evaluations)


evaluations = typer.Typer(help="Win rates of two models, and language confusion.", no_args_is_help=True)
app.add_typer(evaluations, name="evaluate")


@evaluations.command("winrate")
def evaluate_winrate(
    a: Annotated[
        str | None, typer.Argument(metavar="A", help="A model: a folder or a hub id.", show_default=False)
    ] = None,
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="The model it plays against.", show_default=False)
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option("--settings", help="A TOML file with an [evaluation] table; A and B replace its models."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the figures to this JSON file.")] = None,
    warehouse: WarehouseFolder = Path("lake"),
    recipe: OptionalRecipe = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Let two models answer held-out prompts and a judge compare them; a rerun asks only what is missing.

    With --recipe: the held-out prompts of its build, before its judge.
    """
    from flows.evaluation.winrate import find_settings, run_winrate

    found = find_settings(settings, _load(recipe) if recipe else None, a, b)
    run_winrate(found, warehouse=_warehouse(recipe, warehouse), output=output, quiet=quiet)


@evaluations.command("build-prompts")
def evaluate_build_prompts(
    file: Annotated[Path, typer.Argument(help="A TOML file with an [arena] table.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="The data set's folder.", show_default=False)],
    limit: Annotated[int | None, typer.Option(min=1, max=MAX_LIMIT, help="Only the first N prompts.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Translate a benchmark's prompts into a data set like m-ArenaHard; a rerun asks only what is missing."""
    from flows.evaluation.arena import build_arena
    from schemas.recipe.arena import ArenaRecipe
    from schemas.toml.toml_file import load_table

    arena = build_arena(load_table(file, "arena", ArenaRecipe), output, limit=limit, quiet=quiet)
    if not quiet:
        rows = sum(arena.num_rows.values())
        print(f"{arena.path}: {rows:,} prompts in {len(arena.num_rows)} languages, {arena.missing.height:,} missing")


@evaluations.command("confusion")
def evaluate_confusion(
    file: Annotated[str, typer.Argument(help="Parquet, JSONL or CSV with responses.", show_default=False)],
    text: Annotated[str, typer.Option("--text-column", help="The responses; dots reach into fields.")] = "completion",
    language: Annotated[str, typer.Option("--language-column", help="The language asked for.")] = "language",
    groups: Annotated[
        list[str] | None, typer.Option("--by", help="A column to report apart, such as the task; may be repeated.")
    ] = None,
    words: Annotated[
        Path | None, typer.Option("--words", help="English words, one a line, in place of the bundled ones.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the figures to this JSON file.")] = None,
) -> None:
    """Measure how often recorded responses are in the wrong language, by lines (LPR) and by words (WPR)."""
    from flows.evaluation.confusion import measure_confusion

    measure_confusion(file, text=text, language=language, groups=groups or (), words=words, output=output)


def _load(path: Path) -> "Recipe":
    from schemas.recipe.recipe import load_recipe

    return load_recipe(path)


def _warehouse(recipe: Path | None, folder: Path) -> "WarehouseSettings":
    from flows import api

    return api.find_warehouse(folder if recipe is None else _load(recipe))


def _recorded_in(recipe: Path | None, folder: Path | None) -> "WarehouseSettings | None":
    """Return the warehouse that was named, or the one in the usual folder where there is one."""
    if recipe is None and folder is None and not Path("lake/catalog.sqlite").exists():
        return None
    return _warehouse(recipe, folder or Path("lake"))


if __name__ == "__main__":
    main()
