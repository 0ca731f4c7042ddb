import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
)
from vllm import EngineArgs

from factory.engines.base import Engine, Message, Reply, Request
from factory.engines.local.rendering import Renderer
from factory.engines.model_folders import list_arguments
from factory.engines.open import open_engine
from factory.engines.supervision.supervisor import ChildEngine
from schemas.errors import EngineError
from schemas.reasons import Reason
from schemas.recipe.models import EXECUTION_ARGS, RewardModel, Sampling, Structured, Teacher
from tests.factory.engines.chat_families import FAMILIES, make_family
from tests.factory.engines.conftest import TEMPLATE, llama_config, make_tokenizer
from tests.waiting import GUARD_SECONDS

PROMPTS = ["Hello?", "Où est la gare ?", "איפה התחנה?", "車站在哪裡？", "cafe\u0301", "nul \0 nul", "1 + 1 = " * 12]
TEMPLATE_OF_OWN = TEMPLATE.replace("<|end|>", "<|end|>\n")
MAX_TOKENS = 24
OTHER_FAMILIES = sorted(FAMILIES.keys() - {"phi"})


def ask(number: int, *texts: str) -> Request:
    roles = ["user", "assistant"] * len(texts)
    return Request(
        str(number), tuple(Message(role=role, content=text) for role, text in zip(roles, texts, strict=False))
    )


def answer(engine: Engine, requests: list[Request]) -> dict[str, Reply]:
    replies = list(engine.stream(requests))
    assert sorted(reply.request_id for reply in replies) == sorted(request.request_id for request in requests)
    return {reply.request_id: reply for reply in replies}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA adapter of rank 4 on the query projections of the tiny Llama."""
    folder = tmp_path_factory.mktemp("adapter")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(2)
    names = [f"base_model.model.model.layers.{layer}.self_attn.q_proj" for layer in range(2)]
    weights = {f"{name}.lora_A.weight": torch.randn(4, 64) for name in names}
    save_file(
        weights | {f"{name}.lora_B.weight": torch.randn(64, 4) for name in names}, folder / "adapter_model.safetensors"
    )
    return folder


@pytest.fixture(scope="module")
def generator(tiny_llama: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    template = tmp_path_factory.mktemp("template") / "chat.jinja"
    template.write_text(TEMPLATE_OF_OWN, encoding="utf-8")
    teacher = Teacher(
        name="tiny",
        model=str(tiny_llama),
        dtype="float32",
        adapter=str(adapter),
        chat_template=str(template),
        sampling=Sampling(temperature=0.0, max_tokens=MAX_TOKENS),
    )
    with open_engine(teacher, "generate") as engine:
        yield engine


def expect_greedy(folder: Path, adapter: Path, prompt: str) -> tuple[str, int, int]:
    """Return what transformers writes with the adapter merged: text, prompt tokens, completion tokens."""
    from safetensors.torch import load_file

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    weights = load_file(adapter / "adapter_model.safetensors")
    for number, layer in enumerate(model.model.layers):
        name = f"base_model.model.model.layers.{number}.self_attn.q_proj"
        change = weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"]
        layer.self_attn.q_proj.weight.data += change * 8 / 4
    tokenizer = make_tokenizer(TEMPLATE_OF_OWN)
    chat = [{"role": "user", "content": prompt}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)[0]
    num_prompt_tokens = inputs["input_ids"].shape[1]
    completion = output[num_prompt_tokens:]
    return tokenizer.decode(completion, skip_special_tokens=True), num_prompt_tokens, len(completion)


def test_greedy_text_is_that_of_transformers(generator: Engine, tiny_llama: Path, adapter: Path) -> None:
    """Covers the adapter and the template from a file: a slip in either of them changes the text."""
    replies = answer(generator, [ask(number, prompt) for number, prompt in enumerate(PROMPTS)])
    for number, prompt in enumerate(PROMPTS):
        reply = replies[str(number)]
        wanted, num_prompt_tokens, num_completion_tokens = expect_greedy(tiny_llama, adapter, prompt)
        assert reply.text is not None
        assert reply.text.rstrip("\ufffd") == wanted.rstrip("\ufffd")  # vLLM holds a half-written character back
        assert (reply.num_prompt_tokens, reply.num_completion_tokens) == (num_prompt_tokens, num_completion_tokens)
        assert reply.finish_reason == ("length" if num_completion_tokens == MAX_TOKENS else "stop")


def test_a_bad_prompt_fails_alone(generator: Engine) -> None:
    """The context is 256 tokens; each character of "x" is one."""
    replies = answer(
        generator, [ask(0, "x"), ask(1, "x" * 300), ask(2, " \n"), ask(3, "\ud800"), Request("4", ()), ask(5, "y")]
    )
    reasons = {name: reply.failure.reason for name, reply in replies.items() if reply.failure}
    assert reasons == {
        "1": Reason.PROMPT_TOO_LONG,
        "2": Reason.EMPTY_PROMPT,
        "3": Reason.INVALID_TEXT,
        "4": Reason.EMPTY_PROMPT,
    }


def test_a_prompt_that_leaves_room_for_one_token_is_answered(generator: Engine) -> None:
    frame = answer(generator, [ask(0, "x")])["0"].num_prompt_tokens - 1
    replies = answer(generator, [ask(1, "x" * (255 - frame)), ask(2, "x" * (256 - frame))])
    assert (replies["1"].num_prompt_tokens, replies["1"].num_completion_tokens) == (255, 1)
    assert replies["2"].failure is not None


def test_an_engine_killed_in_the_middle_answers_everything(generator: ChildEngine) -> None:
    requests = [ask(number, f"question {number}") for number in range(600)]
    stream = generator.stream(iter(requests))
    replies = [next(stream)]
    assert generator.child is not None
    os.kill(generator.child.pid, signal.SIGKILL)
    replies += stream
    assert sorted(int(reply.request_id) for reply in replies) == list(range(600))
    assert all(reply.text is not None for reply in replies)


@pytest.mark.slow
def test_two_workers_share_one_model(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensor parallelism, with two processors for GPUs: the same answers, and no worker outlives its engine."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    requests = [ask(number, f"{prompt} {number}") for number, prompt in enumerate(PROMPTS * 10)]
    texts = []
    for engine_args in ({}, {"tensor_parallel_size": 2}):
        teacher = Teacher(
            name="two",
            model=str(tiny_llama),
            dtype="float32",
            engine_args=engine_args,
            sampling=Sampling(temperature=0.0, max_tokens=MAX_TOKENS),
        )
        with open_engine(teacher, "generate") as engine:
            assert isinstance(engine, ChildEngine)
            stream = engine.stream(iter(requests))
            replies = [next(stream)]
            assert engine.child is not None
            workers = psutil.Process(engine.child.pid).children(recursive=True)
            os.kill(engine.child.pid, signal.SIGKILL)
            replies += stream
        texts.append({reply.request_id: reply.text for reply in replies})
    assert texts[0] == texts[1]
    assert len(texts[0]) == len(requests)
    assert len(workers) >= 2
    assert not psutil.wait_procs(workers, timeout=GUARD_SECONDS)[1]


def test_reasoning_structure_and_seeds(tiny_llama: Path) -> None:
    teacher = Teacher(
        name="thinker",
        model=str(tiny_llama),
        sampling=Sampling(temperature=1.0, max_tokens=40),
        structured=Structured(regex="<think>[a-z]{3}</think>(yes|no)|<think>[A-Z]{60}"),
        reasoning=("<think>", "</think>"),
    )
    requests = [ask(number, "Well?") for number in range(100)]
    with open_engine(teacher, "generate") as engine:
        replies = list(answer(engine, requests).values())
        seeded = answer(engine, [Request(str(number), requests[0].messages, seed=7) for number in range(20)])
    closed = [reply for reply in replies if reply.finish_reason == "stop"]
    unclosed = [reply for reply in replies if reply.finish_reason == "length"]
    assert len(closed) + len(unclosed) == 100
    assert closed
    assert unclosed
    assert all(reply.text in {"yes", "no"} and len(reply.reasoning or "") == 3 for reply in closed)
    assert all(reply.text == "" and (reply.reasoning or "").isupper() for reply in unclosed)
    assert len({reply.reasoning for reply in replies}) > 50
    ((_, num_alike),) = Counter(reply.reasoning for reply in seeded.values()).most_common(1)
    assert num_alike > 10


def test_a_verdict_held_to_a_form_is_no_thinking_though_the_template_opens_it(tiny_llama: Path, tmp_path: Path) -> None:
    template = tmp_path / "thinking.jinja"
    template.write_text(TEMPLATE.replace("<|assistant|>", "<|assistant|><think>\n"), encoding="utf-8")
    judge = Teacher(
        name="judge",
        model=str(tiny_llama),
        chat_template=str(template),
        structured=Structured(choice=("A", "B")),
        reasoning=("<think>", "</think>"),
    )
    with open_engine(judge, "generate") as engine:
        replies = answer(engine, [ask(number, "Which?") for number in range(10)]).values()
    assert {reply.text for reply in replies} <= {"A", "B"}
    assert {(reply.reasoning, reply.finish_reason) for reply in replies} == {(None, "stop")}


@pytest.mark.parametrize(
    ("token", "reasoning", "is_shown"),
    [
        ("[THINK]", None, True),
        ("<|channel|>", None, True),
        ("<|channel|>", ("<|channel|>analysis<|message|>", "<|end|>"), True),
        ("<t>", ("<t>", "</t>"), True),
        ("<t>", None, False),
        ("<|tool|>", None, False),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, at its import
def test_special_tokens_that_mark_thinking_are_shown(
    token: str, reasoning: tuple[str, str] | None, is_shown: bool
) -> None:
    """Left out, they would leave the thinking in the answer, where no gate could find it."""
    from factory.engines.local.vllm import VllmCore

    core = object.__new__(VllmCore)
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([token], special_tokens=True)
    core._tokenizer, core._reasoning = tokenizer, reasoning
    params = core._sampling_params({"sampling": {}})
    assert params.skip_special_tokens is not is_shown


def expect_reward(folder: Path, prompt: str, completion: str) -> float:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    ids = make_tokenizer().apply_chat_template(chat, return_tensors="pt", return_dict=True)["input_ids"]
    with torch.inference_mode():
        return float(model(input_ids=ids).logits[0, 0])


def reward_model(folder: Path, **engine_args: Any) -> RewardModel:
    return RewardModel(name="tiny", model=str(folder), dtype="float32", engine_args=engine_args)


def test_rewards_are_the_raw_logits(tiny_reward: Path) -> None:
    requests = [ask(number, prompt, f"réponse {number}") for number, prompt in enumerate(PROMPTS)]
    requests += [ask(100, "x", "x" * 300), ask(101, "x", "")]
    with open_engine(reward_model(tiny_reward), "score") as engine:
        replies = answer(engine, requests)
    for number, prompt in enumerate(PROMPTS):
        wanted = expect_reward(tiny_reward, prompt, f"réponse {number}")
        assert replies[str(number)].score == pytest.approx(wanted, rel=1e-3, abs=1e-2)
    assert max(abs(reply.score or 0) for reply in replies.values()) > 20
    assert (failure := replies["100"].failure) is not None
    assert failure.reason is Reason.PROMPT_TOO_LONG
    assert replies["101"].score is not None


def save_family(folder: Path, name: str, kind: Any) -> Path:
    """Write a random model with the tokenizer and the chat template of a family; return its folder."""
    tokenizer = make_family(name)
    torch.manual_seed(3)
    labels = {"num_labels": 1} if kind is AutoModelForSequenceClassification else {}
    kind.from_config(llama_config(vocab_size=len(tokenizer), **labels)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_attack(name: str) -> tuple[list[Message], int]:
    """Return a prompt that spells the control tokens of a family, and how many tokens it would have if they were read."""
    family, tokenizer = FAMILIES[name], make_family(name)
    text = f"Hello{family.end}\n" + "".join([*family.special, *family.plain]) + "Go on"
    messages = [Message(role="user", content=text)]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    return messages, len(ids)


def encode_family(name: str, messages: list[Message], *, opens: bool) -> torch.Tensor:
    tokenizer = make_family(name)
    renderer = Renderer(tokenizer, tokenizer.chat_template)
    return torch.tensor([renderer.encode(renderer.render(messages, opens=opens))])


@pytest.mark.parametrize("name", ["phi", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHER_FAMILIES)])
def test_a_text_of_a_prompt_never_becomes_a_control_token(name: str, tmp_path: Path) -> None:
    folder = save_family(tmp_path, name, AutoModelForCausalLM)
    messages, num_read = make_attack(name)
    sampling = Sampling(temperature=0.0, max_tokens=8)
    with open_engine(Teacher(name="t", model=str(folder), dtype="float32", sampling=sampling), "generate") as engine:
        reply = answer(engine, [Request("0", tuple(messages))])["0"]
    ids = encode_family(name, messages, opens=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        output = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=make_family(name).eos_token_id)
    assert reply.num_prompt_tokens == ids.shape[1] > num_read + 8
    wanted = make_family(name).decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    assert (reply.text or "").rstrip("\ufffd") == wanted.rstrip("\ufffd")


@pytest.mark.parametrize("name", ["phi", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHER_FAMILIES)])
def test_a_text_that_is_scored_never_becomes_a_control_token(name: str, tmp_path: Path) -> None:
    folder = save_family(tmp_path, name, AutoModelForSequenceClassification)
    messages, num_read = make_attack(name)
    messages += [Message(role="assistant", content=f"Best answer.{FAMILIES[name].end}")]
    with open_engine(reward_model(folder), "score") as engine:
        reply = answer(engine, [Request("0", tuple(messages))])["0"]
    ids = encode_family(name, messages, opens=False)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        wanted = float(model(input_ids=ids).logits[0, 0])
    assert reply.num_prompt_tokens == ids.shape[1] > num_read + 8
    assert reply.score == pytest.approx(wanted, rel=1e-3, abs=1e-2)


@pytest.mark.slow
def test_a_reward_for_every_token_counts_at_the_last(tiny_reward: Path) -> None:
    with open_engine(reward_model(tiny_reward, task="reward"), "score") as engine:
        reply = answer(engine, [ask(0, "Why?", "Because.")])["0"]
    assert reply.score == pytest.approx(expect_reward(tiny_reward, "Why?", "Because."), rel=1e-3, abs=1e-2)


@pytest.mark.slow
def test_a_cross_encoder_is_told_which_text_a_token_belongs_to(tmp_path: Path) -> None:
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(mark + letter for mark in ("", "##") for letter in ascii_lowercase),
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path)
    shape: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 1}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), intermediate_size=128, initializer_range=0.3, **shape)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    pairs = [("what is a dog", "a dog is an animal"), ("hello there", "go away"), ("abc def", "xyz")]
    pairs += [("what is [SEP] a dog", "an animal [SEP] a dog is an animal")]
    plainly = {"return_tensors": "pt", "split_special_tokens": True}
    with torch.inference_mode():
        wanted = [float(model(**tokenizer(*pair, **plainly)).logits) for pair in pairs]
    with open_engine(reward_model(tmp_path, task="score"), "score") as engine:
        replies = answer(engine, [ask(number, *pair) for number, pair in enumerate(pairs)])
    found = [replies[str(number)].score for number in range(len(pairs))]
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-2)


@pytest.mark.slow
def test_an_engine_argument_that_vllm_does_not_know(tiny_reward: Path) -> None:
    with (
        open_engine(reward_model(tiny_reward, speed="high"), "score") as engine,
        pytest.raises(EngineError, match="contains 'speed', which vLLM does not know"),
    ):
        answer(engine, [ask(0, "Why?", "Because.")])


def test_execution_arguments_are_vllms() -> None:
    assert {field.name for field in fields(EngineArgs)} >= EXECUTION_ARGS
    assert {field.name for field in fields(EngineArgs)} == list_arguments()
