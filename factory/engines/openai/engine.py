"""The engine for OpenAI-compatible servers, in particular vLLM's; several URLs form a pool.

The number of requests in flight is limited and adapts to the servers' load, and failed requests are retried.
"""

import os
import queue
import threading
from collections.abc import Generator, Iterable
from typing import Literal, Self

import httpx

from factory.engines.base import Reply, Request
from factory.engines.openai.api import scoring_tasks
from factory.engines.openai.servers import Patience
from factory.engines.openai.transport import Connection, RequestLoop
from schemas.errors import EngineError
from schemas.recipe.models import Model

POLL_SECONDS = 0.2


class OpenAIEngine:
    """A model behind one or more OpenAI-compatible servers, behind the ``Engine`` protocol.

    ``task`` is "generate" or "translate" (chat completions), or "score" (vLLM's classify, pooling or score API). Scores
    are always raw: a server that cannot disable its activation is refused. Setting ``stop`` ends a stream early and
    cleanly: nothing new is sent, replies to requests in flight are still yielded, and requests that were taken from the
    iterable but not sent stay unanswered.
    """

    def __init__(
        self,
        model: Model,
        task: Literal["generate", "score", "translate"],
        *,
        stop: threading.Event | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Check the settings and read the key from the environment; nothing is sent before the first request.

        Raises:
            EngineError: the key's variable is not set, or a URL or another setting is not valid for a server.
        """
        for setting in ("chat_template", "adapter"):
            if getattr(model, setting) is not None:
                raise EngineError(
                    f"the openai engine does not support '{setting}' (model '{model.model}'); set it on the server"
                )
        self._connection = Connection(
            model=model,
            urls=tuple(_check_url(url) for url in model.run.urls),
            scoring_tasks=scoring_tasks(model) if task == "score" else (),
            key=_read_key(model.run.api_key_env),
            patience=patience or Patience(),
        )
        self._stop = stop or threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def stream(self, requests: Iterable[Request]) -> Generator[Reply]:
        """Yield one reply per request as each finishes.

        Raises:
            EngineError: a server refuses the key or does not know the model, or none can be reached.
        """
        lane = RequestLoop(self._connection)
        puller = _Puller(requests, lane, self._connection.max_in_flight)
        num_answered = 0
        try:
            while not (puller.is_finished and num_answered == puller.num_sent):
                if self._stop.is_set():
                    puller.close()
                    lane.stop()
                try:
                    answer = lane.answers.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                if isinstance(answer, BaseException):
                    raise answer
                num_answered += 1
                puller.make_room()
                if answer is not None:
                    yield answer
        finally:
            puller.close()
            lane.close()


class _Puller:
    """Takes requests from an iterable in a thread of its own, so that slow planning does not delay replies."""

    def __init__(self, requests: Iterable[Request], lane: RequestLoop, max_in_flight: int) -> None:
        self._requests = iter(requests)
        self._lane = lane
        self._room = threading.Semaphore(max_in_flight)
        self._lock = threading.Lock()
        self.num_sent = 0
        self.is_finished = False
        self._thread = threading.Thread(target=self._run, name="openai-puller", daemon=True)
        self._thread.start()

    def make_room(self) -> None:
        """Allow one more request to be taken."""
        self._room.release()

    def close(self) -> None:
        """Take no more requests; one that is already being waited for is dropped when it arrives."""
        with self._lock:
            self.is_finished = True
        self._room.release()

    def _run(self) -> None:
        try:
            while self._room.acquire() and not self.is_finished:
                request = next(self._requests, None)
                with self._lock:
                    if request is None or self.is_finished:
                        break
                    self.num_sent += 1
                    self._lane.submit(request)
        except BaseException as error:  # handed to the reader, which raises it
            self._lane.answers.put(error)
        finally:
            self.is_finished = True
            if isinstance(self._requests, Generator):
                self._requests.close()


def _check_url(url: str) -> str:
    """Return a base URL without a trailing slash; ``/v1`` is added if it has no path.

    Raises:
        EngineError: it is not a base URL, or contains a user name or password.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise EngineError(f"{url!r} in run.urls is not a URL: {error}") from error
    if parsed.userinfo:
        raise EngineError(
            "a URL in run.urls contains a user name or password; secrets come from the variable in run.api_key_env"
        )
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.query:
        raise EngineError(f"{url!r} in run.urls is not a base URL such as 'http://localhost:8000/v1'")
    return str(parsed).rstrip("/") + ("/v1" if parsed.path in {"", "/"} else "")


def _read_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise EngineError(f"the environment variable {variable}, named by run.api_key_env, is not set")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise EngineError(f"the environment variable {variable} contains characters that are not allowed in a key")
    return key
