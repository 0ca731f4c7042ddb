import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from factory.engines.open import open_engine
from schemas.errors import EngineError
from schemas.recipe.models import Model


@pytest.fixture
def broken(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of a model, to be broken."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"^there is no model folder '.*nowhere'$"):
        open_engine(Model(model=str(tmp_path / "nowhere")), "generate")


def test_a_folder_without_weights(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    with pytest.raises(EngineError, match="has no weights"):
        open_engine(Model(model=str(broken)), "generate")


def test_a_folder_without_a_configuration(broken: Path) -> None:
    (broken / "config.json").unlink()
    with pytest.raises(EngineError, match=r"has no config\.json"):
        open_engine(Model(model=str(broken)), "generate")


def test_a_tokenizer_without_a_chat_template(broken: Path) -> None:
    (broken / "chat_template.jinja").unlink()
    with pytest.raises(EngineError, match="has no chat template; set 'chat_template' to a file"):
        open_engine(Model(model=str(broken)), "generate")


def test_a_generator_cannot_score(tiny_llama: Path) -> None:
    with pytest.raises(EngineError, match=r"is a generator \(LlamaForCausalLM\); a reward model is needed"):
        open_engine(Model(model=str(tiny_llama)), "score")


def test_a_reward_model_cannot_generate(tiny_reward: Path) -> None:
    with pytest.raises(EngineError, match=r"is a classifier \(LlamaForSequenceClassification\); a generator is needed"):
        open_engine(Model(model=str(tiny_reward)), "generate")


def test_an_architecture_that_the_recipe_overrides_is_not_judged(broken: Path) -> None:
    overrides = {"hf_overrides": {"architectures": ["LlamaForSequenceClassification"]}}
    open_engine(Model(model=str(broken), engine_args=overrides), "score")


def test_a_configuration_that_is_not_json(broken: Path) -> None:
    (broken / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(EngineError, match=r"config\.json .* cannot be read"):
        open_engine(Model(model=str(broken)), "generate")


def test_a_model_that_is_not_on_the_hub() -> None:
    with pytest.raises(
        EngineError, match="there is no folder 'nobody/nothing', and as a hub id it is not in the cache"
    ):
        open_engine(Model(model="nobody/nothing"), "generate")


def test_importing_loads_no_heavy_package() -> None:
    heavy = ["torch", "vllm", "transformers", "httpx"]
    code = f"import sys, json, factory.engines.open; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(output) == []
