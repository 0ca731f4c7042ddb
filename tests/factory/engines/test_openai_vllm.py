"""The engine against vLLM's own server, with the scores and texts of transformers as the truth."""

from typing import Any

import pytest

from factory.engines.base import Message, Request
from factory.engines.openai.engine import OpenAIEngine
from schemas.errors import EngineError
from schemas.reasons import Reason
from schemas.recipe.models import Model, ModelRun, RewardModel, Sampling, Structured, Teacher
from tests.vllm_server import KEY, vllm_serve

TEXTS = ["hi", "שלום", "你好吗", "write a poem", "e\u0301t\u00e9"]


def _ask(model: Model, task: Any, requests: list[Request]) -> dict[str, Any]:
    with OpenAIEngine(model, task) as engine:
        replies = list(engine.stream(requests))
    assert sorted(reply.request_id for reply in replies) == sorted(request.request_id for request in requests)
    return {reply.request_id: reply for reply in replies}


def _run(url: str) -> ModelRun:
    return ModelRun(urls=(url,), api_key_env="TINY_KEY", max_in_flight=4)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_vllm_generates_as_transformers_does(tiny_llama, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer, BatchEncoding

    monkeypatch.setenv("TINY_KEY", KEY)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_llama), AutoModelForCausalLM.from_pretrained(tiny_llama)
    requests = [Request(text, (Message(role="user", content=text),)) for text in [*TEXTS, "much too long " * 10]]
    many = [Request(f"{number}", requests[0].messages) for number in range(40)]
    sampling = Sampling(temperature=0.0, max_tokens=12)
    with vllm_serve(tiny_llama, tmp_path / "log") as url:
        teacher = Teacher(engine="openai", name="t", model="tiny", sampling=sampling, run=_run(url))
        replies = _ask(teacher, "generate", requests)
        choice = _ask(
            teacher.model_copy(update={"structured": Structured(choice=("ja", "nein"))}), "generate", requests[:2]
        )
        with pytest.raises(EngineError, match=r"404.*`nope` does not exist"):
            _ask(teacher.model_copy(update={"model": "nope"}), "generate", requests)
        with pytest.raises(EngineError, match="cannot be greater than max_model_len"):
            _ask(teacher.model_copy(update={"sampling": Sampling(max_tokens=500)}), "generate", many)
        monkeypatch.setenv("TINY_KEY", "sk-other")
        with pytest.raises(EngineError, match="401 and refuses the key") as caught:
            _ask(teacher, "generate", requests)
        assert "sk-" not in str(caught.value)
    assert replies[requests[-1].request_id].failure.reason is Reason.PROMPT_TOO_LONG
    assert {reply.text for reply in choice.values()} <= {"ja", "nein"}
    for text in TEXTS:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        assert isinstance(prompt, BatchEncoding)
        ids = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        # vLLM holds back bytes at the end that are not whole characters yet.
        expected = tokenizer.decode(ids, skip_special_tokens=True)
        assert replies[text].text.rstrip("\ufffd") == expected.rstrip("\ufffd")
        assert replies[text].num_prompt_tokens == prompt["input_ids"].shape[1]
        assert replies[text].num_completion_tokens == len(ids)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_vllm_gives_raw_scores(tiny_reward, tmp_path, monkeypatch):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BatchEncoding

    monkeypatch.setenv("TINY_KEY", KEY)
    tokenizer = AutoTokenizer.from_pretrained(tiny_reward)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reward)
    conversations = {
        text: (Message(role="user", content="q"), Message(role="assistant", content=text)) for text in TEXTS
    }
    requests = [Request(text, messages) for text, messages in conversations.items()]
    with vllm_serve(tiny_reward, tmp_path / "log", "--runner", "pooling") as url:
        reward_model = RewardModel(engine="openai", name="r", model="tiny", run=_run(url))
        replies = _ask(reward_model, "score", requests)
    for text in TEXTS:
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]
        prompt = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
        assert isinstance(prompt, BatchEncoding)
        with torch.inference_mode():
            expected = float(model(**prompt).logits)
        assert replies[text].score == pytest.approx(expected, rel=1e-3)
        assert replies[text].num_prompt_tokens == prompt["input_ids"].shape[1]
    assert any(abs(reply.score) > 40 for reply in replies.values()), "large enough to tie under a sigmoid"
