import asyncio
import itertools
import logging
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from factory.engines.base import Message, Reply, Request
from factory.engines.openai.engine import OpenAIEngine
from factory.engines.openai.servers import Outcome, Patience, ServerPool
from factory.engines.openai.transport import read_retry_after
from schemas.errors import EngineError
from schemas.reasons import Reason
from schemas.recipe.evaluation import Contestant, JudgeModel
from schemas.recipe.models import Model, ModelRun, RewardModel, Teacher, Translation
from tests.factory.engines.scripted_server import DROP, Call, ScriptedServer, completion, echo
from tests.waiting import GUARD_SECONDS, wait_until

KEY = "sk-very-secret-0123456789"
QUICK = Patience(num_tries=4, first_seconds=0.01, max_seconds=0.05, down_seconds=0.3)


@pytest.fixture
def serve() -> Iterator[Any]:
    with ExitStack() as stack:
        yield lambda script=echo, port=0: stack.enter_context(ScriptedServer(script, port))


def make_teacher(*urls: str, run: dict[str, Any] | None = None, **settings: Any) -> Teacher:
    execution = ModelRun.model_validate(
        {"urls": urls, "timeout_seconds": GUARD_SECONDS, "max_in_flight": 8, **(run or {})}
    )
    return Teacher(engine="openai", model="tiny", name="tiny", run=execution, **settings)


def make_requests(*texts: str) -> list[Request]:
    return [Request(f"id {text}", (Message(role="user", content=text),)) for text in texts]


def ask(model: Model, requests: list[Request], task: Any = "generate", **options: Any) -> dict[str, Reply]:
    with OpenAIEngine(model, task, **{"patience": QUICK, **options}) as engine:
        replies = list(engine.stream(iter(requests)))
    assert sorted(reply.request_id for reply in replies) == sorted(request.request_id for request in requests)
    return {reply.request_id: reply for reply in replies}


def ask_one(model: Model, text: str = "hello", task: Any = "generate", **options: Any) -> Reply:
    return ask(model, make_requests(text), task, **options)[f"id {text}"]


# What is sent, what is read


def test_texts_of_any_script_come_and_go_unchanged(serve):
    texts = ["שלום עולם", "مرحبا بالعالم", "你好，世界", "e\u0301 \u200f \u0000 🦁", '"quotes" \\ back\nslash', "मौसम"]
    replies = ask(make_teacher(serve().url), make_requests(*texts))
    assert {reply.text for reply in replies.values()} == {f"echo: {text}" for text in texts}
    reply = replies[f"id {texts[0]}"]
    assert (reply.num_prompt_tokens, reply.num_completion_tokens, reply.finish_reason) == (7, 5, "stop")


def test_defaults_send_only_what_every_server_knows(serve):
    server = serve()
    ask_one(make_teacher(server.url))
    assert server.calls[0].path == "/v1/chat/completions"
    assert server.calls[0].body == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.7,
        "top_p": 1.0,
        "max_tokens": 1024,
    }


def test_every_setting_is_sent(serve):
    server = serve()
    sampling = {
        "temperature": 0.2,
        "top_p": 0.9,
        "top_k": 20,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "max_tokens": 9,
        "stop": ("END",),
        "seed": 3,
    }
    teacher = make_teacher(
        server.url,
        chat_template_kwargs={"enable_thinking": False},
        sampling=sampling,
        system_prompt="S",
        structured={"regex": "a+"},
    )
    seeded = Request("seeded", (Message(role="user", content="hello"),), seed=11)
    own_system = Request("own", (Message(role="system", content="S"), Message(role="user", content="hello")))
    ask(teacher, [*make_requests("hello"), seeded, own_system])
    by_seed = {call.body["seed"]: call.body for call in server.calls if call.body["messages"][0]["content"] != "S"}
    assert by_seed[3] == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "hello"}],  # the stage adds the system prompt, the engine does not
        **sampling,
        "stop": ["END"],
        "structured_outputs": {"regex": "a+"},
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert by_seed[11] == by_seed[3] | {"seed": 11}
    [own] = [call.body["messages"] for call in server.calls if call.body["messages"][0]["content"] == "S"]
    assert len(own) == 2


@pytest.mark.parametrize(
    ("structured", "sent"),
    [
        ({"choice": ("yes", "no")}, {"structured_outputs": {"choice": ["yes", "no"]}}),
        (
            {"json_schema": {"type": "object"}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "completion", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
    ],
)
def test_structured_outputs_are_asked_for(serve, structured, sent):
    server = serve()
    ask_one(make_teacher(server.url, structured=structured))
    assert sent.items() <= server.calls[0].body.items()


@pytest.mark.parametrize(
    ("message", "finish_reason", "text", "reasoning", "expected_finish"),
    [
        ({"content": "A", "reasoning": "R"}, "stop", "A", "R", "stop"),
        ({"content": "A", "reasoning_content": "R"}, "stop", "A", "R", "stop"),
        ({"content": "<think> R </think> A"}, "stop", "A", "R", "stop"),
        ({"content": "R</think>A"}, "stop", "A", "R", "stop"),
        ({"content": "<think>R"}, "length", "", "R", "length"),
        ({"content": None, "reasoning": "R"}, "length", "", "R", "length"),
        ({"content": "A"}, "stop", "A", None, "stop"),
        ({"content": ""}, "stop", "", None, "stop"),
        ({"content": "half \ud83e"}, "stop", "half \ufffd", None, "stop"),
    ],
)
def test_reasoning_is_kept_apart(serve, message, finish_reason, text, reasoning, expected_finish):
    async def script(call: Call) -> Any:
        return {"choices": [{"message": message, "finish_reason": finish_reason}]}

    reply = ask_one(make_teacher(serve(script).url, reasoning=("<think>", "</think>")))
    assert reply.failure is None
    assert (reply.text, reply.reasoning, reply.finish_reason) == (text, reasoning, expected_finish)


@pytest.mark.parametrize("kind", [Teacher, Translation, JudgeModel, Contestant])
def test_every_llm_of_a_recipe_may_think(serve, kind):
    async def script(call: Call) -> Any:
        return {"choices": [{"message": {"content": "<t>לָמָּה</t>四"}, "finish_reason": "stop"}]}

    named = {} if kind is Translation else {"name": "tiny"}
    execution = {"urls": [serve(script).url]}
    model = kind(engine="openai", model="tiny", run=execution, reasoning=("<t>", "</t>"), **named)
    reply = ask_one(model)
    assert (reply.text, reply.reasoning) == ("四", "לָמָּה")


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://127.0.0.1:{port}/", "http://127.0.0.1:{port}/v1/"])
def test_base_urls_are_understood(serve, url):
    server = serve()
    port = server.url.split(":")[2].removesuffix("/v1")
    assert ask_one(make_teacher(url.format(port=port))).text == "echo: hello"
    assert server.calls[0].path == "/v1/chat/completions"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://host/v1?key=1", "http://host:port"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(EngineError, match=r"run\.urls"):
        OpenAIEngine(make_teacher(url), "generate")


@pytest.mark.parametrize("setting", ["chat_template", "adapter"])
def test_settings_of_the_server_are_refused(setting):
    with pytest.raises(EngineError, match=f"does not support '{setting}'"):
        OpenAIEngine(make_teacher("http://host").model_copy(update={setting: "x"}), "generate")


@pytest.mark.parametrize(
    ("text", "reason"), [("", Reason.EMPTY_PROMPT), (" \n", Reason.EMPTY_PROMPT), ("\ud800", Reason.INVALID_TEXT)]
)
def test_what_cannot_be_asked_is_not_sent(serve, text, reason):
    server = serve()
    assert ask_one(make_teacher(server.url), text).failure.reason is reason
    assert server.calls == []


# How much at once


def test_no_more_than_the_bound_is_in_flight_or_taken(serve):
    async def script(call: Call) -> Any:
        while len(server.calls) + len(second.calls) < 8:  # until as many are in flight as may be
            await asyncio.sleep(0.001)
        return await echo(call)

    server, second = serve(script), serve(script)
    taken = 0

    def requests() -> Iterator[Request]:
        nonlocal taken
        for request in make_requests(*map(str, range(100))):
            taken += 1
            yield request

    with OpenAIEngine(make_teacher(server.url, second.url), "generate", patience=QUICK) as engine:
        for num_answered, _ in enumerate(engine.stream(requests()), start=1):
            assert taken <= num_answered + 8
    assert taken == num_answered == 100
    assert server.max_in_flight <= 4
    assert second.max_in_flight <= 4
    assert server.max_in_flight + second.max_in_flight == 8


def test_a_server_that_bears_little_gets_little(serve):
    async def script(call: Call) -> Any:
        if server.num_in_flight > 4:
            return 429, {"error": {"message": "slow down"}}
        await asyncio.sleep(0.005)
        return await echo(call)

    server = serve(script)
    replies = ask(make_teacher(server.url, run={"max_in_flight": 32}), make_requests(*map(str, range(300))))
    assert all(reply.failure is None for reply in replies.values())
    num_refused = len(server.calls) - 300
    assert 0 < num_refused < 200


def test_the_limit_drops_once_for_a_burst_and_grows_back():
    async def scenario() -> None:
        pool = ServerPool(["http://a"], 100, QUICK)
        [server] = pool._servers
        start = time.monotonic()

        async def give_back(outcome: Outcome, sent_at: float) -> None:
            assert await pool.acquire() is server
            pool.release(server, outcome, sent_at)

        for _ in range(10):
            await give_back(Outcome.OVERLOADED, start)
        assert server.limit == 75.0
        await give_back(Outcome.OVERLOADED, time.monotonic())
        assert server.limit == 56.25
        for _ in range(24):
            await give_back(Outcome.ANSWERED, time.monotonic())
        assert server.limit == 56.25
        await give_back(Outcome.ANSWERED, time.monotonic())
        assert server.limit == 57.25
        for _ in range(25 * 100):
            await give_back(Outcome.ANSWERED, time.monotonic())
        assert server.limit == 100.0

    asyncio.run(scenario())


def test_the_least_loaded_server_is_chosen():
    async def scenario() -> None:
        pool = ServerPool(["http://a", "http://b"], 8, QUICK)
        taken = [await pool.acquire() for _ in range(6)]
        assert sorted(server.url for server in taken) == ["http://a"] * 3 + ["http://b"] * 3
        first = taken[0]
        assert first is not None
        pool.release(first, Outcome.ANSWERED, 0.0)
        assert await pool.acquire(avoid=first) is not first
        assert await pool.acquire() is first

    asyncio.run(scenario())


# Servers that stumble


@pytest.mark.parametrize(
    "bad",
    [
        (500, b"oops"),
        (503, {"error": "busy"}),
        (429, {}),
        (408, b""),
        DROP,
        b"not json",
        b"\xff\xfe",
        {"choices": []},
        {"choices": [{"message": {}}]},
        {"choices": [{"message": {"content": 5}}]},
        {"error": {"message": "odd"}},
        [],
        completion("half", "abort"),
    ],
    ids=str,
)
def test_one_stumble_is_made_good(serve, bad):
    async def script(call: Call) -> Any:
        return bad if call.number == 0 else await echo(call)

    server = serve(script)
    assert ask_one(make_teacher(server.url)).text == "echo: hello"
    assert len(server.calls) == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ((500, b"oops"), Reason.SERVER_ERROR),
        ((429, {"error": {"message": "quota"}}), Reason.SERVER_ERROR),
        (DROP, Reason.SERVER_ERROR),
        (b"not json", Reason.INVALID_REPLY),
        ({"choices": [{}]}, Reason.INVALID_REPLY),
        (b"[" * 100_000, Reason.INVALID_REPLY),
        (b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e999}}', Reason.INVALID_REPLY),
        ({"choices": [{"message": {"content": "x"}, "finish_reason": {}}]}, Reason.INVALID_REPLY),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_never_gets_better_is_given_up(serve, bad, reason):
    async def script(call: Call) -> Any:
        return bad if call.text == "bad" else await echo(call)

    server = serve(script)
    replies = ask(make_teacher(server.url), make_requests("good 1", "bad", "good 2"))
    assert replies["id bad"].failure.reason is reason
    assert replies["id good 1"].text == "echo: good 1"
    assert sum(call.text == "bad" for call in server.calls) >= QUICK.num_tries


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}])
def test_pauses_between_tries_grow(serve, headers):
    async def script(call: Call) -> Any:
        return 500, b"", headers

    server = serve(script)
    ask_one(make_teacher(server.url), patience=Patience(num_tries=4, first_seconds=0.06, max_seconds=0.12))
    times = [call.at for call in server.calls]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(gaps) == 3
    assert all(gap >= least for gap, least in zip(gaps, (0.03, 0.06, 0.06), strict=True))


def test_a_server_that_is_only_busy_is_asked_until_it_has_time(serve):
    async def script(call: Call) -> Any:
        if call.text != "busy":
            return await echo(call)
        tries.append(call.number)
        if len(tries) > 4:
            return await echo(call)
        while len(server.calls) < call.number + 32:  # more than fit in flight: others were answered meanwhile
            await asyncio.sleep(0.001)
        return 429, {}

    tries: list[int] = []
    server = serve(script)
    requests = make_requests("busy", *map(str, range(300)))
    replies = ask(make_teacher(server.url, run={"max_in_flight": 16}), requests, patience=Patience(2, 0.01, 0.01))
    assert replies["id busy"].text == "echo: busy"


def test_a_hanging_request_times_out_and_the_others_go_on(serve):
    async def script(call: Call) -> Any:
        await asyncio.sleep(60 if call.text == "hang" else 0)
        return await echo(call)

    server = serve(script)
    replies = ask(make_teacher(server.url, run={"timeout_seconds": 2.0}), make_requests("hang", "1", "2", "3"))
    assert replies["id hang"].failure.reason is Reason.TIMEOUT
    assert replies["id hang"].failure.detail == "the server did not answer within 2 s"
    assert [replies[f"id {number}"].text for number in (1, 2, 3)] == [f"echo: {number}" for number in (1, 2, 3)]
    assert sum(call.text == "hang" for call in server.calls) == 2


def test_waiting_for_a_turn_is_no_time_out(serve):
    async def script(call: Call) -> Any:
        if call.number == 0:
            return 429, {}, {"Retry-After": "1.5"}
        return await echo(call)

    server = serve(script)
    assert ask_one(make_teacher(server.url, run={"timeout_seconds": 1.0})).text == "echo: hello"
    first, second = server.calls
    assert 1.5 <= second.at - first.at < GUARD_SECONDS


def test_the_whole_server_is_spared_after_retry_after(serve):
    async def script(call: Call) -> Any:
        if call.number == 0:
            return 503, {}, {"Retry-After": "0.5"}
        return await echo(call)

    server = serve(script)
    ask(make_teacher(server.url, run={"max_in_flight": 1}), make_requests("1", "2"))
    assert server.calls[1].at - server.calls[0].at >= 0.5


def test_retry_after_is_read():
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert read_retry_after("7") == 7.0
    seconds = read_retry_after(format_datetime(later, usegmt=True))
    assert seconds is not None
    assert (later - datetime.now(UTC)).total_seconds() - 1 <= seconds <= 90
    assert read_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert read_retry_after("-3") == 0.0
    for value in (None, "soon", "nan", "inf", ""):
        assert read_retry_after(value) is None


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_down_is_left_out_and_comes_back(serve):
    async def script(call: Call) -> Any:
        await asyncio.sleep(0.002)
        return await echo(call)

    port = _free_port()
    up = serve(script)
    late: list[ScriptedServer] = []
    deadline = time.monotonic() + GUARD_SECONDS

    def requests() -> Iterator[Request]:
        number = 0
        while not (late and len(late[0].calls) > 20):
            assert time.monotonic() < deadline, "the server that came back gets no requests"
            if number == 50:
                late.append(serve(script, port))
            yield make_requests(str(number))[0]
            number += 1

    with OpenAIEngine(make_teacher(f"http://127.0.0.1:{port}/v1", up.url), "generate", patience=QUICK) as engine:
        replies = list(engine.stream(requests()))
    assert len(replies) == len({reply.request_id for reply in replies}) >= 50
    assert all(reply.failure is None for reply in replies)


def test_a_server_that_is_down_gets_one_probe_at_a_time():
    async def scenario() -> None:
        pool = ServerPool(["http://a"], 8, QUICK)
        server = await pool.acquire()
        assert server is not None
        pool.release(server, Outcome.UNREACHABLE, time.monotonic())
        closed_at = time.monotonic()
        waiting = [asyncio.ensure_future(pool.acquire()) for _ in range(5)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert time.monotonic() - closed_at >= 0.9 * QUICK.first_seconds
        await asyncio.sleep(5 * QUICK.first_seconds)
        assert server.num_in_flight == 1
        pool.release(server, Outcome.ANSWERED, time.monotonic())
        await asyncio.gather(*waiting)
        assert server.num_in_flight == 4
        pool.stop()
        assert await pool.acquire() is None

    asyncio.run(scenario())


def test_servers_that_cannot_be_reached_end_the_lane():
    urls = [f"http://127.0.0.1:{_free_port()}/v1" for _ in range(2)]
    with pytest.raises(EngineError, match=f"no server can be reached at {urls[0]}, {urls[1]}"):
        ask(make_teacher(*urls), make_requests(*map(str, range(20))))


# Servers that say no


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (400, "This model's maximum context length is 64 tokens. However, your prompt ...", Reason.PROMPT_TOO_LONG),
        (400, "The input (90 tokens) is longer than the model's context length (64 tokens).", Reason.PROMPT_TOO_LONG),
        (400, "the request exceeds the available context size", Reason.PROMPT_TOO_LONG),
        (413, "prompt is too long", Reason.PROMPT_TOO_LONG),
        (400, "unknown role 'poet'", Reason.REFUSED_BY_ENGINE),
        (422, "messages: field required", Reason.REFUSED_BY_ENGINE),
        (451, "not in your country", Reason.REFUSED_BY_ENGINE),
    ],
)
@pytest.mark.parametrize("form", ["openai", "fastapi", "plain"])
def test_a_refused_request_fails_alone_and_at_once(serve, status, message, reason, form):
    payload = {"openai": {"error": {"message": message}}, "fastapi": {"detail": message}, "plain": message.encode()}

    async def script(call: Call) -> Any:
        return (status, payload[form]) if call.text == "bad" else await echo(call)

    server = serve(script)
    replies = ask(make_teacher(server.url), make_requests("bad", "good"))
    assert replies["id bad"].failure.reason is reason
    assert replies["id bad"].failure.detail == f"the server answers {status}: {message}"
    assert replies["id good"].failure is None
    assert len(server.calls) == 2


def test_settings_that_every_request_is_refused_for_end_the_lane(serve):
    async def script(call: Call) -> Any:
        return 400, {"error": {"message": "max_tokens is too large"}}

    server = serve(script)
    with pytest.raises(EngineError, match=r"all of the first 32 requests were refused; .*max_tokens is too large"):
        ask(make_teacher(server.url), make_requests(*map(str, range(1000))))
    assert len(server.calls) <= 40


def test_many_refused_requests_among_good_ones_end_nothing(serve):
    async def script(call: Call) -> Any:
        return await echo(call) if call.text in {"0", "99"} else (400, {"error": "no"})

    replies = ask(make_teacher(serve(script).url, run={"max_in_flight": 1}), make_requests(*map(str, range(100))))
    assert sum(reply.failure is None for reply in replies.values()) == 2


@pytest.mark.parametrize("refused", [completion(None, refusal="I will not."), completion("", "content_filter")])
def test_a_filtered_completion_is_refused(serve, refused):
    async def script(call: Call) -> Any:
        return refused

    assert ask_one(make_teacher(serve(script).url)).failure.reason is Reason.REFUSED_BY_ENGINE


@pytest.mark.parametrize("status", [401, 403, 404, 307, 501, 505, 511])
def test_a_server_that_refuses_everything_ends_the_lane(serve, status, monkeypatch):
    async def script(call: Call) -> Any:
        return status, {"error": {"message": f"no, {call.headers['authorization']}"}}

    monkeypatch.setenv("TINY_KEY", KEY)
    server = serve(script)
    with pytest.raises(EngineError, match=str(status)) as caught:
        ask(make_teacher(server.url, run={"api_key_env": "TINY_KEY"}), make_requests(*map(str, range(100))))
    assert KEY not in str(caught.value)
    assert ("TINY_KEY" in str(caught.value)) == (status in {401, 403})
    assert len(server.calls) <= 8


def test_a_server_whose_replies_cannot_be_decoded_ends_the_lane(serve):
    async def script(call: Call) -> Any:
        return 200, completion("hello"), {"Content-Encoding": "gzip"}

    server = serve(script)
    with pytest.raises(EngineError, match=r"requests to the server at .* fail .DecodingError: .*check 'run\.urls'"):
        ask_one(make_teacher(server.url))
    assert len(server.calls) == 1


# The key


def test_the_key_is_sent_and_seen_nowhere_else(serve, monkeypatch, caplog, capfd):
    async def script(call: Call) -> Any:
        assert call.headers["authorization"] == f"Bearer {KEY}"
        if call.text in {"400", "500"}:
            return int(call.text), {"error": {"message": f"your key {KEY} is odd"}}
        return b"{" + KEY.encode() if call.text == "json" else {"odd": KEY} if call.text == "odd" else await echo(call)

    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TINY_KEY", f"{KEY}\n")
    teacher = make_teacher(serve(script).url, run={"api_key_env": "TINY_KEY"})
    engine = OpenAIEngine(teacher, "generate", patience=QUICK)
    replies = list(engine.stream(make_requests("fine", "400", "500", "json", "odd")))
    assert {reply.request_id for reply in replies if reply.failure is None} == {"id fine"}
    assert sum("***" in reply.failure.detail for reply in replies if reply.failure is not None) >= 3
    seen = [repr(engine), repr(vars(engine)), repr(replies), repr(teacher), caplog.text, *capfd.readouterr()]
    assert not any(KEY in text for text in seen)


def test_without_a_setting_no_key_is_sent(serve):
    server = serve()
    ask_one(make_teacher(server.url))
    assert "authorization" not in server.calls[0].headers


@pytest.mark.parametrize("value", [None, "", " ", "two words", "schlüssel", "line\nbreak"])
def test_a_missing_or_odd_key_names_its_variable(monkeypatch, value):
    monkeypatch.delenv("TINY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TINY_KEY", value)
    with pytest.raises(EngineError, match="TINY_KEY") as caught:
        OpenAIEngine(make_teacher("http://host", run={"api_key_env": "TINY_KEY"}), "generate")
    assert not (value and value.strip() and value in str(caught.value))


def test_a_key_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(EngineError, match="user name or password") as caught:
        OpenAIEngine(make_teacher(f"http://{KEY}@host/v1"), "generate")
    assert KEY not in str(caught.value)


# Ending early


def _lane_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("openai-")]


def test_closing_the_stream_cancels_what_is_in_flight(serve):
    async def script(call: Call) -> Any:
        await asyncio.sleep(0 if call.number == 0 else 60)
        return await echo(call)

    server = serve(script)
    engine = OpenAIEngine(make_teacher(server.url), "generate")
    stream = engine.stream(make_requests(*map(str, range(100))))
    next(stream)
    wait_until(lambda: server.num_in_flight == 8)
    stream.close()
    wait_until(lambda: server.num_hung_up == 8 and not _lane_threads())
    assert len(server.calls) == 9


def test_stop_ends_the_stream_when_what_is_in_flight_is_answered(serve):
    async def script(call: Call) -> Any:
        if call.text == "again":
            return 500, b"", {"Retry-After": "60"}
        await release.wait()
        return await echo(call)

    async def make_event() -> asyncio.Event:
        return asyncio.Event()

    release = asyncio.Event()
    server = serve(script)
    stop = threading.Event()
    engine = OpenAIEngine(make_teacher(server.url, run={"max_in_flight": 4}), "generate", stop=stop)

    def requests() -> Iterator[Request]:
        yield from make_requests("1", "2", "3", "4")
        while True:
            yield from make_requests("more")

    def end() -> None:
        wait_until(lambda: server.num_in_flight == 4)
        stop.set()
        time.sleep(0.5)
        server._loop.call_soon_threadsafe(release.set)

    ender = threading.Thread(target=end)
    ender.start()
    replies = list(engine.stream(requests()))
    ender.join()
    assert {reply.text for reply in replies} == {f"echo: {number}" for number in (1, 2, 3, 4)}
    assert len(server.calls) == 4


@pytest.mark.parametrize("headers", [{"Retry-After": "60"}, {}])
def test_stop_leaves_unanswered_what_waits_for_another_try(serve, headers):
    async def script(call: Call) -> Any:
        return 429, {}, headers

    server = serve(script)
    stop = threading.Event()
    engine = OpenAIEngine(make_teacher(server.url), "generate", stop=stop, patience=Patience(first_seconds=60.0))

    def end() -> None:
        wait_until(lambda: server.calls)
        stop.set()

    ender = threading.Thread(target=end)
    ender.start()
    assert list(engine.stream(make_requests("1", "2"))) == []
    ender.join()


def test_an_error_of_the_iterable_is_raised(serve):
    def requests() -> Iterator[Request]:
        yield from make_requests("1")
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(OpenAIEngine(make_teacher(serve().url), "generate").stream(requests()))
    wait_until(lambda: not _lane_threads())


def test_an_engine_streams_again(serve):
    engine = OpenAIEngine(make_teacher(serve().url), "generate")
    assert list(engine.stream([])) == []
    for _ in range(2):
        assert len(list(engine.stream(make_requests("1", "2")))) == 2


# Scoring


def make_reward(url: str, **arguments: Any) -> RewardModel:
    return RewardModel(engine="openai", model="tiny", name="tiny", engine_args=arguments, run=ModelRun(urls=(url,)))


def scoring_server(path: str, value: Any) -> Any:
    """A script like vLLM's server: it has one scoring path, and checks the type of ``use_activation``."""

    async def script(call: Call) -> Any:
        if call.path != path:
            return 404, {"detail": "Not Found"}
        if not isinstance(call.body["use_activation"], bool):
            return 400, {"error": {"message": "use_activation: not a boolean"}}
        return {"data": [value(call)], "usage": {"prompt_tokens": 4}}

    return script


@pytest.mark.parametrize(
    ("path", "value", "arguments", "extra"),
    [
        ("/classify", lambda call: {"probs": [-59.5]}, {}, {"messages"}),
        ("/pooling", lambda call: {"data": [[1.0], [2.0], [-59.5]]}, {}, {"messages", "task"}),
        ("/pooling", lambda call: {"data": [1.0, -59.5]}, {"task": "reward"}, {"messages", "task"}),
        ("/score", lambda call: {"score": -59.5}, {"task": "score"}, {"text_1", "text_2"}),
    ],
)
def test_raw_scores_are_asked_for(serve, path, value, arguments, extra):
    server = serve(scoring_server(path, value))
    conversation = (Message(role="user", content="q"), Message(role="assistant", content="a"))
    requests = [Request(str(number), conversation) for number in range(20)]
    replies = ask(make_reward(server.url, **arguments), requests, "score")
    assert {(reply.score, reply.num_prompt_tokens) for reply in replies.values()} == {(-59.5, 4)}
    asked = [call.body for call in server.calls if call.path == path]
    assert sum(body["use_activation"] is False for body in asked) == 20
    assert sum(body["use_activation"] is not False for body in asked) == 1, "one probe for each server"
    assert set(asked[-1]) == {"model", "use_activation"} | extra


def test_a_reward_model_behind_a_server_has_switches_of_its_template(serve):
    server = serve(scoring_server("/classify", lambda call: {"probs": [1.0]}))
    model = make_reward(server.url).model_copy(update={"chat_template_kwargs": {"enable_thinking": False}})
    conversation = (Message(role="user", content="q"), Message(role="assistant", content="a"))
    ask(model, [Request("0", conversation)], "score")
    assert server.calls[-1].body["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_server_that_ignores_the_activation_setting_is_refused(serve):
    async def script(call: Call) -> Any:
        return {"data": [{"probs": [0.98]}]}

    with pytest.raises(EngineError, match="cannot give raw scores"):
        ask_one(make_reward(serve(script).url), task="score")


def test_a_server_that_only_generates_is_refused(serve):
    async def script(call: Call) -> Any:
        return 404, {"detail": "Not Found"}

    with pytest.raises(EngineError, match=r"does not score \(it has none of /classify, /pooling\)"):
        ask_one(make_reward(serve(script).url), task="score")


def test_a_model_with_several_labels_is_refused(serve):
    with pytest.raises(EngineError, match="has 3 labels"):
        ask_one(make_reward(serve(scoring_server("/classify", lambda call: {"probs": [1, 2, 3]})).url), task="score")


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "x", []])
def test_what_is_no_number_is_no_score(serve, value):
    server = serve(scoring_server("/classify", lambda call: {"probs": [value]}))
    assert ask_one(make_reward(server.url), task="score").failure.reason is Reason.INVALID_REPLY


def test_an_unknown_scoring_task_is_refused():
    with pytest.raises(EngineError, match="allowed are classify, reward, score"):
        OpenAIEngine(make_reward("http://host", task="rank"), "score")
