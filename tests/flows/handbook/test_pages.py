"""Everything that the handbook and the README show is run on a small build, or checked as far as it can be without running.

How a block is taken is said in ``tests.flows.handbook.blocks``. Pages share one build, that of the first tutorial: each begins in
a folder where that one has been run. Models are stand-ins; training and merging are real.
"""

import ast
import contextlib
import io
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from flows import api, cli
from flows.evaluation import winrate
from flows.evaluation.evaluate import evaluate
from flows.handbook.__main__ import write_reference
from flows.lanes.context import open_context
from flows.lanes.side_by_side import Unwatched
from flows.orchestration import watching
from schemas.recipe.arena import ArenaRecipe
from schemas.recipe.evaluation import EvaluationSettings
from schemas.recipe.merging import MergeSettings
from schemas.recipe.recipe import Recipe
from schemas.recipe.settings import WarehouseSettings
from schemas.recipe.training import TrainSettings
from schemas.tables import TABLES as SCHEMAS
from tests.flows.handbook.blocks import Block, read_blocks
from tests.flows.handbook.microworld_engines import open_stand_in
from tests.flows.report_rows import add_policy
from warehouse.build.scope import VIEWS, Scope, latest_build
from warehouse.lake.lake import Lake
from warehouse.shell.shell import open_for_reading

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
FIRST = DOCS / "tutorials/first-data-set.md"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "reference")]
TABLES: dict[str, Any] = {
    "train": TrainSettings,
    "merge": MergeSettings,
    "evaluation": EvaluationSettings,
    "arena": ArenaRecipe,
} | {name: field.annotation for name, field in Recipe.model_fields.items() if name not in {"train", "merge"}}
COMMAND = typer.main.get_command(cli.app)


@pytest.fixture(scope="module")
def stand_ins() -> Iterator[None]:
    """Have stand-ins answer in place of models, in this process, and no server be told of it."""

    @contextlib.contextmanager
    def watch(recipe: Recipe, *, quiet: bool) -> Iterator[Unwatched]:
        yield Unwatched(quiet=quiet)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.recipe_run.open_context", partial(open_context, open_engine=open_stand_in))
        patch.setattr(winrate, "evaluate", partial(evaluate, open_engine=open_stand_in))
        patch.setattr("flows.evaluation.evaluate.evaluate", partial(evaluate, open_engine=open_stand_in))
        patch.setattr(watching, "watch", watch)
        patch.setattr("flows.doctor.recipe_trials.find_template_faults", lambda trials: [None] * len(trials))
        patch.setenv("LOCAL_KEY", "none")
        patch.setenv("COLUMNS", "200")
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, stand_ins: None) -> Path:
    """A folder as it is after the first tutorial, and with the rows of a policy besides."""
    folder = tmp_path_factory.mktemp("first") / "project"
    folder.mkdir()
    for name in ("factory", "docs", "flows"):
        (folder / name).symlink_to(ROOT / name)
    with contextlib.chdir(folder):
        run_page(FIRST)
    settings = WarehouseSettings(catalog=f"{folder}/lake/catalog.sqlite", data=f"{folder}/lake/data")
    with Lake.open(settings) as lake:
        add_policy(lake, folder / "policy", config_id=latest_build(lake) or "")
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if page != FIRST], ids=lambda page: page.stem)
def test_what_a_page_shows_runs(page: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "project"
    shutil.copytree(project, folder, symlinks=True)
    monkeypatch.chdir(folder)
    run_page(page)


def test_the_first_tutorial_runs_and_its_build_has_what_later_pages_ask_for(project: Path) -> None:
    versions = list((project / "exports/first").glob("v*"))
    assert len(versions) == 1
    manifest = json.loads((versions[0] / "manifest.json").read_text(encoding="utf-8"))
    assert {file["config"] for file in manifest["files"] if file["num_rows"]} == {"sft", "preference"}


@pytest.mark.parametrize("name", ["route", "pairs"])
def test_the_sql_of_an_example_has_rows(name: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    with open_for_reading(WarehouseSettings()) as scope:
        assert scope.query((DOCS / f"examples/{name}.sql").read_text(encoding="utf-8")).height


@pytest.mark.parametrize("name", ["recorded", "server", "own_sql", "policy"])
def test_an_example_can_be_planned(name: str, stand_ins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "reward" in run_factory(["plan", str(DOCS / f"examples/{name}.toml")])


def test_the_first_example_is_the_recipe_of_the_first_tutorial() -> None:
    (shown,) = [block for block in read_blocks(FIRST) if block.title == "recipe.toml"]
    example = (DOCS / "examples/first.toml").read_text(encoding="utf-8").replace('"../../factory', '"./factory')
    assert tomllib.loads(shown.text) == tomllib.loads(example)


def test_the_reference_has_every_key_table_view_and_command(tmp_path: Path) -> None:
    write_reference(tmp_path)
    pages = {path.stem: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.md")}
    assert set(pages) == {"settings", "tables", "commands", "python"}
    for name in (*SCHEMAS, *VIEWS):
        assert f"### {name} {{" in pages["tables"]
    assert isinstance(COMMAND, typer.core.TyperGroup)
    for name in COMMAND.commands:
        assert f"## factory {name} " in pages["commands"]
    for key in ("min_script_share", "temperature", "batch_rows", "density", "bootstrap_rounds"):
        assert f"| `{key}` |" in pages["settings"]
    for name in api.__all__:
        assert name == "FactoryError" or f"## {name} {{" in pages["python"]


def test_links_lead_somewhere() -> None:
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            is_generated = (page.parent / target).resolve().parent == DOCS / "reference"
            assert "://" in target or is_generated or (page.parent / target).exists(), f"{page}: {target}"


def test_the_readme_can_be_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1000


def test_both_pictures_of_the_flow_are_one_drawing() -> None:
    light, dark = ((DOCS / f"images/flow-{name}.svg").read_text(encoding="utf-8") for name in ("light", "dark"))
    plain = [_without_colours(text) for text in (light, dark)]
    assert plain[0] == plain[1]
    assert light != dark


def run_page(page: Path) -> None:
    """Run the blocks of a page in order, in the working directory."""
    names: dict[str, Any] = {"__name__": page.stem}
    with contextlib.ExitStack() as stack:
        open_scope = partial(_open_once, stack, [])
        for block in read_blocks(page):
            if block.title is not None:
                Path(block.title).write_text(block.text, encoding="utf-8")
            try:
                _take(block, names, open_scope)
            except BaseException as error:
                error.add_note(f"in the block at {block}:\n{block.text}")
                raise


def _open_once(stack: contextlib.ExitStack, opened: list[Scope]) -> Scope:
    """Return the warehouse of the working directory, opened for all queries of a page."""
    if not opened:
        opened.append(stack.enter_context(open_for_reading(WarehouseSettings())))
    return opened[0]


def _take(block: Block, names: dict[str, Any], open_scope: Callable[[], Scope]) -> None:
    match block.language:
        case "sh":
            _run_shell(block)
        case "python":
            code = compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if block.why is None:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(code, names)
        case "sql" if block.title is None:
            assert open_scope().query(block.text).height or block.why, "the query has no rows"
        case "toml":
            _check_toml(block)
        case "json":
            json.loads(block.text)
        case "yaml":
            yaml.safe_load(block.text)
        case "jsonl":
            assert [json.loads(line) for line in block.text.splitlines()]
        case "sql" | "text" | "":
            pass
        case other:
            raise AssertionError(f"{other!r} is no language of blocks here")


def _run_shell(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for words in block.commands():
        while words and "=" in words[0]:
            words = words[1:]
        match words:
            case ["factory", *arguments] if block.why is None:
                run_factory(arguments)
            case ["factory", *arguments]:
                _parse(COMMAND, arguments)
            case ["sed" | "cp", *_] if block.why is None:
                subprocess.run(words, check=True)
            case ["make", *targets]:
                _check_targets(targets)
            case ["python", "-m", module, *_] if module.startswith("tests."):
                assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
            case ["python" | "pytest", file, *_] if file.startswith("tests/"):
                assert (ROOT / file).exists(), file


def run_factory(arguments: list[str]) -> str:
    """Run a ``factory`` command in this process and return what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        COMMAND.main(arguments, standalone_mode=False)
    return printed.getvalue()


def _parse(command: Any, arguments: list[str]) -> None:
    """Have a command's arguments parsed, and those of the command in it, without running anything."""
    context = command.make_context("factory", list(arguments))
    if hasattr(command, "commands"):
        name, inner, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert inner is not None, name
        _parse(inner, rest)


def _check_targets(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        assert "=" in word or f"\n{word}:" in makefile, f"make has no target {word!r}"


def _check_toml(block: Block) -> None:
    """Check a whole recipe as a recipe, and each table of a part of one as that table."""
    data = tomllib.loads(block.text)
    if "prompts" in data and "teachers" in data and "name" in data:
        Recipe.model_validate(data, context={"folder": Path.cwd()})
        return
    for name, value in data.items():
        assert name in TABLES, f"there is no table or key {name!r}"
        if name in {"train", "merge", "evaluation", "arena"} or not _is_partial(value, TABLES[name]):
            TypeAdapter(TABLES[name]).validate_python(value, context={"folder": Path.cwd()})
        else:
            _check_keys(value, TABLES[name])


def _is_partial(value: Any, annotation: Any) -> bool:
    """Whether a table lacks keys that are needed: it is a part of one."""
    try:
        TypeAdapter(annotation).validate_python(value, context={"folder": Path.cwd()})
    except ValidationError as error:
        if any(each["type"] != "missing" for each in error.errors()):
            raise
        return True
    return False


def _check_keys(value: Any, annotation: Any) -> None:
    for table in value if isinstance(value, list) else [value]:
        section = _section_in(annotation)
        if section is not None and isinstance(table, Mapping):
            unknown = table.keys() - {field.serialization_alias or key for key, field in section.model_fields.items()}
            assert not unknown, f"unknown keys {unknown}"


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part)) is not None), None)


def _without_colours(svg: str) -> str:
    return re.sub(r'="#[0-9a-f]{6}"', '="#"', svg)
