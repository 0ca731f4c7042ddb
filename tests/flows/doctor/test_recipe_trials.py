"""What a run would be refused is said before it: by ``factory doctor --recipe`` and ``factory plan``, without an engine."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from factory.engines.local.limits import find_limit_fault
from factory.engines.local.trial import Trial, find_setting_fault
from flows.build.plan import print_plan
from flows.doctor.finding import Finding
from flows.doctor.recipe_trials import find_refusals, try_models
from schemas.errors import EngineError
from schemas.recipe.models import Teacher
from schemas.recipe.recipe import Recipe
from tests.factory.engines.chat_families import make_family
from tests.waiting import GUARD_SECONDS


def make_model(folder: Path, family: str, architecture: str = "LlamaForCausalLM") -> str:
    """Write a folder with everything of a model but its weights, which no trial loads."""
    folder.mkdir(parents=True, exist_ok=True)
    make_family(family).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture], "model_type": "llama"}))
    (folder / "model.safetensors").touch()
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for family in ("chatml", "gemma", "llama"):
        make_model(tmp_path / family, family)
    make_model(tmp_path / "reward", "llama", "LlamaForSequenceClassification")
    (tmp_path / "prompts.jsonl").write_text('{"q": "What is the tallest mountain?"}\n')
    return tmp_path


def make(folder: Path, family: str = "gemma", sections: dict[str, Any] | None = None, **teacher: Any) -> Recipe:
    small: dict[str, Any] = {
        "name": "small",
        "languages": ["en", "fr"],
        "prompts": [{"name": "p", "path": str(folder / "prompts.jsonl"), "language": "en", "columns": {"prompt": "q"}}],
        "teachers": [{"name": "t", "model": str(folder / family)} | teacher],
        "reward_models": [{"name": "r", "model": str(folder / "reward")}],
        "warehouse": {"catalog": str(folder / "lake.sqlite"), "data": str(folder / "data")},
    }
    return Recipe.model_validate(small | (sections or {}))


def test_models_that_take_what_is_asked_are_ok(folder):
    findings = list(try_models(make(folder)))
    assert findings == [
        Finding("requests to teacher t", "ok", "its template takes a plain question and the first prompt of p"),
        Finding("requests to reward model r", "ok", "its template takes a plain question and the first prompt of p"),
    ]


def test_a_system_prompt_for_a_template_that_refuses_system_turns_is_named(folder):
    (refusal,) = find_refusals(make(folder, system_prompt="Sois bref."))
    assert refusal == (
        "requests to teacher t: a plain question: the chat template refuses the conversation: System role not supported"
    )
    assert find_refusals(make(folder, "chatml", system_prompt="Sois bref.")) == []


def test_a_source_whose_first_prompt_a_template_refuses_is_named(folder):
    turns = [{"role": "system", "content": "كن مختصرا"}, {"role": "user", "content": "ما هذا؟"}]
    (folder / "prompts.jsonl").write_text(json.dumps({"q": turns}) + "\n")
    (refusal,) = find_refusals(make(folder))
    assert refusal.startswith("requests to teacher t: the first prompt of p: the chat template refuses")


def test_judges_and_translators_and_reward_models_are_tried_too(folder):
    gemma = str(folder / "gemma")
    policy = {
        "base": str(folder / "llama"),
        "steps": [{"name": "sft", "train": {"objective": "sft"}}],
        "held_out": {"judge": {"llm": {"name": "j", "model": gemma}}},
    }
    sections = {
        "translation": {"engine": "vllm", "model": gemma, "system_prompt": "Translate."},
        "reward_models": [{"name": "r", "model": gemma, "system_prompt": "Be kind."}],
        "policy": policy,
    }
    refused = [refusal.partition(":")[0] for refusal in find_refusals(make(folder, "chatml", sections))]
    assert refused == ["requests to translator", "requests to reward model r", "requests to judge j"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"chat_template_kwargs": {"enable_thinkin": False}},
            "does not use 'enable_thinkin' of 'chat_template_kwargs'",
        ),
        ({"engine_args": {"speed": "high"}}, "engine_args of model"),
        ({"adapter": "/nowhere"}, "adapter '/nowhere' cannot be read"),
        ({"run": {"max_model_len": 4}}, "'run.max_model_len' allows 4 including the answer"),
        ({"quantization": "int3"}, "'quantization' is 'int3', which vLLM does not know; allowed are awq, "),
        ({"engine_args": {"dtype": "fp16"}}, "'dtype' is 'fp16', which vLLM does not know; allowed are auto, "),
        ({"chat_template": "/nowhere.jinja"}, "chat template '/nowhere.jinja' cannot be read"),
    ],
)
def test_settings_that_the_run_refuses_are_named(folder, settings, said):
    (refusal,) = find_refusals(make(folder, "chatml", **settings))
    assert said in refusal


LIMIT = "'run.max_model_len' is 513, but the model's configuration allows at most 512"


@pytest.mark.parametrize(
    ("config", "settings", "said"),
    [
        ({}, {"run": {"max_model_len": 513}}, LIMIT),
        ({}, {"run": {"max_model_len": 512}}, None),
        ({}, {}, None),
        ({}, {"run": {"max_model_len": 513}, "engine_args": {"hf_overrides": {"max_position_embeddings": 9999}}}, None),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, {"run": {"max_model_len": 1024}}, None),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, {"run": {"max_model_len": 1025}}, "allows at most 1024"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, {"run": {"max_model_len": 513}}, LIMIT),
        ({"model_max_length": 2048}, {"run": {"max_model_len": 2049}}, "allows at most 2048"),
        ({"model_max_length": 2048}, {"run": {"max_model_len": 2048}}, None),
        (
            {},
            {"run": {"gpus": 3}},
            "'run.gpus' is 3, but the model has 4 attention heads, which are divisible by 1, 2, 4",
        ),
        ({}, {"run": {"gpus": 2}}, None),
    ],
)
def test_what_the_configuration_of_a_model_does_not_allow_is_named(folder, config, settings, said):
    file = folder / "chatml" / "config.json"
    small = {"max_position_embeddings": 512, "num_attention_heads": 4, "hidden_size": 64, "num_hidden_layers": 1}
    file.write_text(json.dumps(json.loads(file.read_bytes()) | small | config))
    fault = find_limit_fault(make(folder, "chatml", **settings).teachers[0], str(file.parent))
    assert (fault is None) if said is None else (fault is not None and said in fault), fault


def test_a_length_beyond_the_configuration_is_refused_before_the_run(folder):
    recipe = make(folder, "chatml", run={"max_model_len": 2049})
    assert find_refusals(recipe) == [
        "requests to teacher t: 'run.max_model_len' is 2049, but the model's configuration allows at most 2048"
    ]


def test_switches_of_the_template_are_a_setting_of_the_model(folder):
    assert find_refusals(make(folder, "chatml", chat_template_kwargs={"enable_thinking": False})) == []
    with pytest.raises(ValueError, match="set it beside 'engine_args', not inside"):
        make(folder, "chatml", engine_args={"chat_template_kwargs": {"enable_thinking": False}})
    with pytest.raises(ValueError, match="'tools' is not a switch of a chat template"):
        make(folder, "chatml", chat_template_kwargs={"tools": []})


def test_settings_that_a_server_does_not_take_are_named():
    server = {"engine": "openai", "model": "m", "run": {"urls": ["http://localhost:1/v1"]}}
    teacher = Teacher.model_validate({"name": "t", "adapter": "x"} | server)
    assert "does not support 'adapter'" in str(find_setting_fault(Trial(teacher, "generate", {}, None)))


def test_a_model_without_a_tokenizer_is_named(folder):
    for path in (folder / "gemma").glob("tokenizer*"):
        path.unlink()
    (refusal,) = find_refusals(make(folder))
    assert "its tokenizer cannot be loaded" in refusal


def test_a_trial_that_cannot_be_made_is_a_note(folder, tmp_path, monkeypatch):
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "transformers.py").write_text("raise ImportError('no transformers here')")
    monkeypatch.syspath_prepend(tmp_path / "fake")
    (finding,) = try_models(make(folder))
    assert finding.state == "note"
    assert "no transformers here" in finding.found


def test_the_plan_says_what_would_fail(folder, capsys):
    print_plan(make(folder, system_prompt="Sois bref."))
    assert "would fail: requests to teacher t: a plain question:" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["models/teachr", "nobody/nothing"])
def test_a_mistyped_folder_is_no_such_folder(folder, name):
    recipe = make(folder, model=name)
    with pytest.raises(EngineError, match=f"there is no folder '{name}', and as a hub id it is not in the cache"):
        print_plan(recipe)


def test_a_trial_leaves_heavy_packages_out_of_the_parent(folder):
    code = (
        "import sys\nfrom schemas.recipe.recipe import Recipe\nfrom flows.doctor.recipe_trials import find_refusals\n"
        f"print(find_refusals(Recipe.model_validate({make(folder).model_dump(mode='json')!r})))\n"
        "assert not {'torch', 'transformers', 'vllm'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD_SECONDS)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
