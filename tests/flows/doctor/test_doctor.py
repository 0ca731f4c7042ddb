import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from flows.doctor.finding import GIB, Finding
from flows.doctor.machine_checks import HeavyImports, check_extensions, check_language_model
from flows.doctor.recipe_checks import check_files, check_fit, check_keys, check_models
from flows.doctor.storage_checks import check_warehouse
from flows.lanes.gpus import Gpu, list_gpus
from schemas.recipe.recipe import Recipe
from schemas.recipe.settings import WarehouseSettings
from tests.factory.engines.chat_families import make_family
from tests.http_server import serve
from tests.services import POSTGRES_PASSWORD, free_port
from tests.waiting import GUARD_SECONDS

KEY = "sk-never-shown"


def make(folder: Path, **changes: Any) -> Recipe:
    (folder / "prompts.jsonl").write_text('{"q": "What is the tallest mountain?"}\n')
    small = {
        "name": "small",
        "prompts": [{"name": "p", "path": str(folder / "prompts.jsonl"), "language": "en", "columns": {"prompt": "q"}}],
        "teachers": [{"name": "a", "model": "org/a"}],
        "reward_models": [{"name": "r", "engine": "openai", "model": "r", "run": {"urls": ["http://127.0.0.1:9/v1"]}}],
    }
    return Recipe.model_validate(small | changes)


def states(findings: Iterable[Finding]) -> dict[str, str]:
    return {finding.check: finding.state for finding in findings}


def only(findings: Iterable[Finding], state: str) -> Finding:
    (found,) = [finding for finding in findings if finding.state == state]
    return found


def make_model(folder: Path, *, architecture: str = "LlamaForCausalLM", num_bytes: int = 10) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(num_bytes)
    return str(folder)


# The whole


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    folder = tmp_path / "build"
    for name, architecture in (("teacher", "LlamaForCausalLM"), ("reward", "LlamaForSequenceClassification")):
        make_model(folder / name, architecture=architecture)
        make_family("phi").save_pretrained(folder / name)
    (folder / "prompts.jsonl").write_text('{"q": "What is the tallest mountain?"}\n')
    path = folder / "recipe.toml"
    path.write_text("""
name = "small"
[[prompts]]
name = "p"
path = "prompts.jsonl"
language = "en"
columns = { prompt = "q" }
[[teachers]]
name = "a [bold]"
model = "./teacher"
[[reward_models]]
name = "r"
model = "./reward"
run = { api_key_env = "SOME_KEY" }
""")
    return path


def test_a_recipe_that_can_run_passes(recipe_file):
    done = run_doctor(recipe_file, SOME_KEY=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "problems: none" in done.stdout
    for name in ("python", "machine", "GPUs", "language model", "DuckDB extensions", "torch", "transformers", "vLLM"):
        assert f"│ {name} " in done.stdout
    assert KEY not in done.stdout + done.stderr
    left = sorted(path.name for path in recipe_file.parent.iterdir())
    assert left == ["prompts.jsonl", "recipe.toml", "reward", "teacher"]


def test_a_recipe_that_cannot_run_fails_and_is_told_what_to_do(recipe_file, fake_packages):
    fake_packages(torch="raise ImportError('no libtorch.so')", transformers="", vllm="")
    done = run_doctor(recipe_file)
    assert done.returncode == 1
    assert "problems: 3" in done.stdout
    assert "set the environment variable SOME_KEY" in done.stdout
    assert "no libtorch.so" in done.stdout
    assert "teacher a [bold]" in done.stdout


def run_doctor(recipe: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", "doctor", "--recipe", recipe.name]
    kept = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    return subprocess.run(
        command, cwd=recipe.parent, env=kept | environment, capture_output=True, text=True, timeout=GUARD_SECONDS
    )


# The machine


@pytest.fixture
def fake_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write modules that shadow the heavy packages."""

    def write(**modules: str) -> None:
        for name, text in modules.items():
            path = tmp_path / "packages" / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))

    return write


CUDA = "class cuda:\n is_available = staticmethod(lambda: {0} > 0)\n device_count = staticmethod(lambda: {0})\n"


def test_packages_that_cannot_be_imported_are_problems(fake_packages):
    fake_packages(
        torch=CUDA.format(0), transformers="raise RuntimeError('no torchvision')", vllm="raise SystemExit('broken')"
    )
    with HeavyImports() as imports:
        found = list(imports.check(0, needed={"torch", "vllm"}))
    assert states(found) == {"torch": "ok", "transformers": "problem", "vLLM": "problem"}
    assert "RuntimeError: no torchvision" in found[1].found
    assert "cannot be imported: SystemExit: broken" in found[2].found


def test_gpus_that_the_packages_cannot_use_are_problems(fake_packages):
    fake_packages(torch=CUDA.format(0), transformers="", vllm____init__="", vllm__v1____init__="")
    fake_packages(vllm__v1__engine____init__="", vllm__v1__engine__llm_engine="")
    with HeavyImports() as imports:
        found = list(imports.check(2, needed={"torch", "vllm"}))
    assert "nvidia-smi shows 2 GPUs, torch can use none" in [finding.found for finding in found]
    assert states(found)["vLLM"] == "problem"  # the tests' environment has the CPU package


def test_a_process_that_dies_of_an_import_is_a_problem(fake_packages):
    fake_packages(torch="import os\nos._exit(7)")
    with HeavyImports() as imports:
        assert (
            only(imports.check(0, needed={"torch", "vllm"}), "problem").found
            == "importing ended the process (status 7)"
        )


def test_gpus_are_those_of_nvidia_smi(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '0, GPU-a, NVIDIA H200, 143771, 4'\necho '1, [N/A], NVIDIA H200, 143771, 90000'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    gpus = list_gpus()
    assert [(gpu.number, gpu.uuid, gpu.name) for gpu in gpus] == [(0, "GPU-a", "NVIDIA H200"), (1, "1", "NVIDIA H200")]
    assert gpus[1].memory == 143771 * 2**20
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert list_gpus() == ()


def test_language_model_and_extensions_are_here():
    assert states(check_language_model()) == {"language model": "ok"}
    assert states(check_extensions(None)) == {"DuckDB extensions": "ok"}


# The recipe's files, models, keys


def test_files_that_are_missing_or_have_other_columns(tmp_path):
    assert states(check_files(make(tmp_path))) == {"prompts.p.path": "ok"}
    prompts = make(tmp_path).model_dump(mode="json")["prompts"]
    recipe = make(
        tmp_path,
        prompts=[
            prompts[0] | {"name": "none", "path": str(tmp_path / "none*.parquet")},
            prompts[0] | {"name": "other", "columns": {"prompt": "question"}},
        ],
        teachers=[
            {"name": "a", "model": "org/a", "chat_template": str(tmp_path / "none.jinja")},
            {
                "name": "b",
                "engine": "recorded",
                "recorded": {"path": str(tmp_path / "b.jsonl"), "columns": {"text": "t", "key": "k"}},
            },
        ],
        pairs=[{"strategy": "sql", "name": "mine", "sql": str(tmp_path / "mine.sql")}],
    )
    found = list(check_files(recipe))
    assert states(found) == {
        "prompts.none.path": "problem",
        "prompts.other.path": "problem",
        "teachers.a.chat_template": "problem",
        "teachers.b.recorded.path": "problem",
        "pairs.mine.sql": "problem",
    }
    assert "no field 'question'" in found[1].found


def test_sql_of_the_users_own_is_bound(tmp_path):
    sql = {
        "none": "SELEC prompt_id FROM candidates",
        "two": "SELECT 1; SELECT 2",
        "nope": "SELECT a.prompt_id, a.completion_id AS chosen_id,\n a.nope AS rejected_id FROM candidates a",
        "less": "SELECT prompt_id FROM candidates",
        "one": "SELECT prompt_id, completion_id AS chosen_id, completion_id AS rejected_id FROM candidates",
    }
    for name, text in sql.items():
        (tmp_path / f"{name}.sql").write_text(text)
    pairs = [{"strategy": "sql", "name": name, "sql": str(tmp_path / f"{name}.sql")} for name in sql if name != "none"]
    routing = {"method": "sql", "sql": str(tmp_path / "none.sql")}
    policy = make_policy(make_model(tmp_path / "base"), pairs=[pairs[1] | {"name": "own"}])
    found = {
        finding.check: finding for finding in check_files(make(tmp_path, routing=routing, pairs=pairs, policy=policy))
    }
    assert {name for name, finding in found.items() if finding.state == "ok"} == {"prompts.p.path", "pairs.one.sql"}
    assert "none.sql is not SQL: " in found["routing.sql"].found
    assert "must hold exactly one SELECT, but holds SELECT, SELECT" in found["pairs.two.sql"].found
    assert "less.sql must return the columns prompt_id, chosen_id, rejected_id;" in found["pairs.less.sql"].found
    for name in ("pairs.nope.sql", "policy.steps.online.on_policy.pairs.own.sql"):
        assert found[name].found == (
            f"the SELECT of {tmp_path}/nope.sql cannot be run: "
            'line 2: Binder Error: Values list "a" does not have a column named "nope"'
        )


def make_policy(base: str, **on_policy: Any) -> dict[str, Any]:
    return {"base": base, "steps": [{"name": "online", "train": {"objective": "dpo"}, "on_policy": on_policy}]}


def test_models_of_the_policy_are_looked_at(tmp_path):
    judge = {"llm": {"name": "j", "model": str(tmp_path / "judge"), "run": {"api_key_env": "SOME_KEY"}}}
    recipe = make(tmp_path, policy=make_policy("/nowhere/base") | {"held_out": {"judge": judge}})
    found = {finding.check: finding for finding in check_models(recipe)}
    assert (found["policy base"].state, found["policy base"].found) == (
        "problem",
        "there is no model folder '/nowhere/base'",
    )
    assert found["judge j"].state == "problem"
    assert states(check_keys(recipe)) == {"key of judge j": "problem"}


def test_what_other_commands_read_is_a_note_until_it_is_there(tmp_path):
    train = {"model": "/nowhere/model", "data": "/nowhere/data", "objective": "sft"}
    found = states(check_files(make(tmp_path, train=train, merge={"models": [{"model": "/nowhere/parent"}]})))
    assert found == {
        "prompts.p.path": "ok",
        "train.model": "note",
        "train.data": "note",
        "merge.models.0.model": "note",
    }


def test_keys_are_looked_for_and_never_shown(tmp_path, monkeypatch):
    recipe = make(tmp_path, teachers=[{"name": "a", "model": "org/a", "run": {"api_key_env": "SOME_KEY"}}])
    assert only(check_keys(recipe), "problem").found == "SOME_KEY is not set"
    monkeypatch.setenv("SOME_KEY", KEY)
    assert KEY not in str(only(check_keys(recipe), "ok"))


def test_local_models_are_looked_at(tmp_path):
    teachers = [
        {"name": "good", "model": make_model(tmp_path / "good")},
        {"name": "wrong", "model": make_model(tmp_path / "wrong", architecture="LlamaForSequenceClassification")},
        {"name": "none", "model": str(tmp_path / "none")},
    ]
    translation = {"model": make_model(tmp_path / "nllb", architecture="M2M100ForConditionalGeneration")}
    found = states(check_models(make(tmp_path, teachers=teachers, translation=translation)))
    assert found["teacher good"] == found["translator"] == "ok"
    assert found["teacher wrong"] == found["teacher none"] == "problem"


@pytest.mark.parametrize(("offline", "missing"), [("1", "problem"), ("0", "note")])
def test_models_of_the_hub_are_looked_for_in_its_cache(tmp_path, offline, missing):
    commit = "0" * 40
    folder = tmp_path / "hub" / "models--org--here"
    make_model(folder / "snapshots" / commit, num_bytes=3 * 2**20)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    code = """
import sys
from pathlib import Path
from flows.doctor.recipe_checks import check_models
from tests.flows.doctor.test_doctor import make
teachers = [{"name": "here", "model": "org/here"}, {"name": "there", "model": "org/there"}]
for finding in check_models(make(Path(sys.argv[1]), teachers=teachers)):
    print(finding.check, finding.state, finding.found, sep="|")
"""
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": offline, "PYTHONPATH": str(Path(__file__).parents[3])}
    printed = subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], env=environment, text=True)
    lines = [line.split("|") for line in printed.splitlines()]
    assert lines[0] == ["teacher here", "ok", "org/here, 3.0 MiB in the hub's cache"]
    assert lines[1][:2] == ["teacher there", missing]
    assert ["hub token", "note"] in [line[:2] for line in lines]


@contextmanager
def models_server(key: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.path == "/v1/models" and self.headers["Authorization"] == f"Bearer {key}"
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with serve(Handler) as address:
        yield f"{address}/v1"


def test_servers_are_asked(tmp_path, monkeypatch):
    with models_server(KEY) as url:
        run = {"urls": [url, f"http://127.0.0.1:{free_port()}/v1"], "api_key_env": "SOME_KEY"}
        teacher = {"name": "a", "engine": "openai", "model": "a", "run": run}
        rewards = [{"name": "r", "engine": "openai", "model": "r", "run": {"urls": [url], "api_key_env": "SOME_KEY"}}]
        recipe = make(tmp_path, teachers=[teacher], reward_models=rewards)
        monkeypatch.setenv("SOME_KEY", KEY)
        found = list(check_models(recipe))
        assert [finding.state for finding in found] == ["ok", "problem", "ok"]
        assert "does not answer (ConnectError)" in found[1].found
        monkeypatch.setenv("SOME_KEY", "another")
        found = list(check_models(recipe))
        assert "refuses the key" in found[0].found
        assert "another" not in str(found)


# GPUs


@pytest.mark.parametrize("name", ["models/nothere/deep", "org/name/", "gem ma", "x--y"])
def test_a_name_that_is_neither_a_folder_nor_a_hub_id_is_a_problem(tmp_path, name):
    teachers = [{"name": "t", "model": name}]
    found = {finding.check: finding for finding in check_models(make(tmp_path, teachers=teachers))}["teacher t"]
    assert (found.state, found.found) == ("problem", f"no such folder as {name}, and no hub id has such a name")


def test_models_must_fit_onto_the_slots(tmp_path, monkeypatch):
    gpus = [Gpu(number, f"GPU-{number}", "H200", 100 * GIB, 0) for number in range(4)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")

    def check(run: dict[str, Any], slots: list[list[int]], model: str = "org/a") -> dict[str, str]:
        recipe = make(tmp_path, teachers=[{"name": "a", "model": model, "run": run}], run={"slots": slots})
        return states(check_fit(recipe, gpus))

    assert check({"gpus": 2, "replicas": 2}, []) == {}
    assert check({"gpus": 8}, []) == {"fit of teacher a": "problem"}
    assert check({"gpus": 2, "replicas": 2}, [[0, 1], [2]]) == {"fit of teacher a": "problem"}
    assert check({}, [[0], [7]]) == {"slots": "problem"}
    large = make_model(tmp_path / "large", num_bytes=150 * GIB)
    assert check({"gpus": 1}, [], large) == {"fit of teacher a": "problem"}
    assert check({"gpus": 2}, [], large) == {"fit of teacher a": "note"}
    assert check({"gpus": 4}, [], large) == {}


def test_without_gpus_tensor_parallel_is_a_note_and_slots_are_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    teachers = [{"name": "a", "model": "org/a", "run": {"gpus": 2, "replicas": 2}}]
    found = list(check_fit(make(tmp_path, teachers=teachers), []))
    assert [(finding.state, finding.found) for finding in found] == [
        ("note", "models ask for up to 4 GPUs; there is none")
    ]
    assert states(check_fit(make(tmp_path, run={"slots": [[0]]}), [])) == {"slots": "problem"}
    large = make_model(tmp_path / "large", num_bytes=2**43)
    teachers = [{"name": "a", "model": large}]
    assert states(check_fit(make(tmp_path, teachers=teachers), [])) == {"fit of teacher a": "problem"}


# The warehouse


def test_folders_are_tried_and_left_as_they_were(tmp_path):
    settings = WarehouseSettings(catalog=str(tmp_path / "lake/catalog.sqlite"), data=str(tmp_path / "lake/data"))
    found = states(check_warehouse(settings, str(tmp_path / "exports")))
    assert set(found) == {"catalog", "data", "exports"}
    assert "problem" not in found.values()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "lake").write_text("a file")
    assert states(check_warehouse(settings, str(tmp_path)))["catalog"] == "problem"


def test_a_catalog_of_something_else_is_a_problem(tmp_path):
    (tmp_path / "catalog.sqlite").write_bytes(b"SQLite format 3\x00" + b"\x00" * 100)
    settings = WarehouseSettings(catalog=str(tmp_path / "catalog.sqlite"), data=str(tmp_path / "data"))
    assert only(check_warehouse(settings, str(tmp_path)), "problem").check == "warehouse"


def test_object_storage_needs_credentials(tmp_path, monkeypatch):
    settings = WarehouseSettings(catalog=str(tmp_path / "catalog.sqlite"), data="s3://bucket/lake")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    found = only(check_warehouse(settings, str(tmp_path)), "problem")
    assert found.found == "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY not set"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    findings = list(check_warehouse(settings, str(tmp_path)))
    assert states(findings)["object storage"] == "ok"
    assert KEY not in str(findings)


def test_postgres_is_asked(tmp_path, postgres_url, monkeypatch):
    def check(catalog: str) -> Finding:
        settings = WarehouseSettings(catalog=catalog, data=str(tmp_path))
        return next(finding for finding in check_warehouse(settings, str(tmp_path)) if finding.check == "catalog")

    assert check(postgres_url).state == "ok"
    monkeypatch.setenv("PGPASSWORD", "wrong " + KEY)
    refused = check(postgres_url)
    assert refused.state == "problem"
    assert "password authentication failed" in refused.found
    assert check(f"postgres://factory@127.0.0.1:{free_port()}/lake").state == "problem"
    assert KEY not in str(refused)
    assert POSTGRES_PASSWORD not in str(refused)
