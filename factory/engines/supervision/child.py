"""The child process in which a model runs; it reads requests from one pipe and writes replies to another.

Started as ``python -m factory.engines.supervision.child CORE REQUESTS REPLIES LIFELINE``, the last three being file
descriptors. A frame is one line of ASCII JSON: it needs no length prefix, an incomplete last line is recognized, and
any text survives, including lone surrogates and NUL. The first line on the request pipe contains the core's settings.
On the wire, requests have serial numbers instead of ids, so that a late reply is never matched with a later attempt of
the same request.

The child has a session of its own, so Ctrl-C does not reach it. It must not outlive its parent, however that dies: a
guardian process, forked before anything heavy is loaded, kills the whole process group when the lifeline pipe closes.
(PR_SET_PDEATHSIG would be too early, since it fires when the *thread* that started the child ends.)
"""

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from factory.engines.base import Failure, Reply, Request
from factory.loading import loading
from schemas.errors import EngineError
from schemas.reasons import Reason

HEARTBEAT_SECONDS = 1.0
"""The minimum interval between messages by which a working child shows that it is alive."""


class Core(Protocol):
    """The code that runs in the child: a model that processes a batch of requests, step by step.

    A request that cannot be answered becomes a reply with a failure. An exception from ``submit`` or ``step`` ends the
    child, which the supervisor treats as a crash.
    """

    def submit(self, request: Request) -> None:
        """Accept a request; must return quickly."""
        ...

    def step(self) -> list[Reply]:
        """Do some work and return finished replies; called repeatedly while requests are pending."""
        ...

    def close(self) -> None:
        """Free the model's resources."""
        ...


@dataclass(frozen=True, slots=True)
class Ready:
    """The core is loaded."""


@dataclass(frozen=True, slots=True)
class Alive:
    """The core has made a step."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The core cannot be loaded; with the reason."""

    sentence: str


def encode_request(serial: int, request: Request) -> bytes:
    """Return a request as a frame."""
    return _encode(
        [serial, request.messages, request.source_language, request.target_language, request.seed],
    )


def decode_request(frame: bytes) -> Request:
    """Return the request in a frame, with its serial number as its id."""
    serial, messages, source_language, target_language, seed = json.loads(frame)
    return Request(str(serial), tuple(messages), source_language, target_language, seed)


def encode_reply(reply: Reply) -> bytes:
    """Return a reply, whose id is its request's serial number, as a frame."""
    failure = reply.failure and [reply.failure.reason.value, reply.failure.detail]
    numbers = [reply.num_prompt_tokens, reply.num_completion_tokens]
    return _encode(
        [int(reply.request_id), reply.text, reply.reasoning, reply.score, reply.finish_reason, numbers, failure]
    )


def decode_event(frame: bytes) -> Ready | Alive | Refused | tuple[int, Reply]:
    """Return the content of a frame from the child: a serial number with its reply, or the child's state.

    The reply's ``request_id`` is the serial number as text.
    """
    data = json.loads(frame)
    if isinstance(data, dict):
        return Refused(data["refused"]) if "refused" in data else Ready() if "ready" in data else Alive()
    serial, text, reasoning, score, finish_reason, (num_prompt_tokens, num_completion_tokens), failure = data
    return serial, Reply(
        request_id=str(serial),
        text=text,
        reasoning=reasoning,
        score=score,
        finish_reason=finish_reason,
        num_prompt_tokens=num_prompt_tokens,
        num_completion_tokens=num_completion_tokens,
        failure=failure and Failure(Reason(failure[0]), failure[1]),
    )


def _encode(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"


def load_core(path: str) -> Callable[[dict[str, object]], Core]:
    """Import the function ``package.module:function`` that opens a core."""
    module, _, function = path.partition(":")
    with loading():
        opened: Callable[[dict[str, Any]], Core] = getattr(importlib.import_module(module), function)
    return opened


def serve(core: Core, requests: "queue.SimpleQueue[Request | None]", replies: BinaryIO) -> None:
    """Answer requests until ``None`` comes; unanswered ones are then dropped."""
    num_submitted = 0
    last_frame = time.monotonic()
    while True:
        while not requests.empty() or num_submitted == 0:
            request = requests.get()
            if request is None:
                return
            core.submit(request)
            num_submitted += 1
        finished = core.step()
        num_submitted -= len(finished)
        frames = [encode_reply(reply) for reply in finished]
        if not frames and time.monotonic() - last_frame > HEARTBEAT_SECONDS:
            frames = [_encode({"alive": True})]
        if frames:
            replies.writelines(frames)
            replies.flush()
            last_frame = time.monotonic()


def _read_requests(pipe: BinaryIO, requests: "queue.SimpleQueue[Request | None]") -> None:
    for frame in pipe:
        if frame.endswith(b"\n"):
            requests.put(decode_request(frame))
    requests.put(None)


def _fork_guardian(lifeline: int, others: tuple[int, ...]) -> None:
    """Fork a process that kills this process group when the write end of ``lifeline`` is closed."""
    if os.fork():
        os.close(lifeline)
        return
    for descriptor in others:
        os.close(descriptor)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.read(lifeline, 1)
    os.killpg(0, signal.SIGKILL)


def main(core_path: str, request_fd: int, reply_fd: int, lifeline_fd: int) -> None:
    """Load the core and serve until the request pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _fork_guardian(lifeline_fd, (request_fd, reply_fd))
    for descriptor in (request_fd, reply_fd):
        os.set_inheritable(descriptor, False)
    pipe = os.fdopen(request_fd, "rb")
    replies = os.fdopen(reply_fd, "wb")
    settings = json.loads(pipe.readline())
    try:
        core = load_core(core_path)(settings)
    except EngineError as error:
        replies.write(_encode({"refused": str(error)}))
        replies.close()
        return
    replies.write(_encode({"ready": True}))
    replies.flush()
    requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(pipe, requests), daemon=True).start()
    serve(core, requests, replies)
    core.close()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # skip the slow finalizers of large libraries; the kernel frees everything
