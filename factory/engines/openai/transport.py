"""Sending requests to OpenAI-compatible servers: an event loop in a thread of its own, with retries and timeouts.

The timeout of a request starts when it is sent, not while it waits for a server.
"""

import asyncio
import contextlib
import email.utils
import json
import math
import queue
import random
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace

import httpx

from factory.engines.base import Failure, Reply, Request
from factory.engines.openai.api import (
    SCORING_PATHS,
    InvalidReplyError,
    ScoringTask,
    find_fault,
    make_chat_body,
    make_probe_body,
    make_score_body,
    read_completion,
    read_error_message,
    read_refusal,
    read_score,
)
from factory.engines.openai.servers import Outcome, Patience, Server, ServerPool
from schemas.errors import EngineError
from schemas.passing import PASSING_STATUSES, list_passing_transport
from schemas.reasons import Reason
from schemas.recipe.models import Model, Writer

CONNECT_SECONDS = 10.0
MAX_IN_FLIGHT = 512
KEEP_ALIVE_SECONDS = 2.0
"""Shorter than the servers' own (5 s for vLLM), so that no request is sent on a connection that is being closed."""

MAX_REFUSED = 32
"""How many requests may be rejected before the first answer. Rejections are permanent, so a wrong setting must be
noticed before all requests are rejected."""

CONNECTIONS_PER_CLIENT = 16
"""The limit per client: httpx scans all connections of a client for each request, which with 512 takes 8 ms, not 2."""

_MISSING = {404, 405, 501}
_LOCKED = {401, 402, 403}


@dataclass(frozen=True, slots=True)
class Connection:
    """Everything needed to talk to a model's servers. Without ``scoring_tasks``, chat completions are used."""

    model: Model
    urls: tuple[str, ...]
    scoring_tasks: tuple[ScoringTask, ...]
    patience: Patience
    key: str | None = field(repr=False)

    @property
    def writer(self) -> Writer:
        """The model, as a writer; only for chat completions."""
        assert isinstance(self.model, Writer)
        return self.model

    @property
    def max_in_flight(self) -> int:
        return self.model.run.max_in_flight or MAX_IN_FLIGHT

    @property
    def timeout_seconds(self) -> float:
        return self.model.run.timeout_seconds

    def hide_key(self, text: str) -> str:
        """Return text with the key removed, because a server may echo it in an error message."""
        return text if self.key is None else text.replace(self.key, "***")

    def open_clients(self) -> list[httpx.AsyncClient]:
        """Return enough clients for all requests that may be in flight; they send the key with each request."""
        headers = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        tls = httpx.create_ssl_context()
        return [
            httpx.AsyncClient(
                headers=headers | {"Content-Type": "application/json"},
                verify=tls,
                timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
                limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS),
            )
            for _ in range(math.ceil(self.max_in_flight / CONNECTIONS_PER_CLIENT))
        ]


class RequestLoop:
    """The event loop behind one stream. ``answers`` gets one item per submitted request.

    An item is a reply, None for a request that was not sent because of ``stop``, or the error that ends the stream.
    """

    def __init__(self, connection: Connection) -> None:
        self.answers: queue.SimpleQueue[Reply | BaseException | None] = queue.SimpleQueue()
        self._connection = connection
        self._clients = connection.open_clients()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[Reply | None]] = set()
        self._sender: _Sender | None = None
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="openai-lane", daemon=True)
        self._thread.start()
        self._is_ready.wait()

    def submit(self, request: Request) -> None:
        """Send a request as soon as a server has room."""
        self._loop.call_soon_threadsafe(self._start, request)

    def stop(self) -> None:
        """Send nothing more."""
        assert self._sender is not None
        self._loop.call_soon_threadsafe(self._sender.stop)

    def close(self) -> None:
        """Drop the requests in flight and end the thread."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._sender = _Sender(self._connection, self._clients)
        self._is_ready.set()
        await self._closing.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients:
            await client.aclose()

    def _start(self, request: Request) -> None:
        assert self._sender is not None
        task = self._loop.create_task(self._sender.answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[Reply | None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self.answers.put(task.exception() or task.result())


@dataclass(frozen=True, slots=True)
class _Trouble:
    """A failed attempt: the request's failure, if it is not retried, and what the attempt reveals about the server."""

    failure: Failure
    outcome: Outcome = Outcome.OVERLOADED
    num_tries: int = 1
    is_throttled: bool = False
    retry_after_seconds: float | None = None


class _Sender:
    """Sends requests and retries them until they are answered or have failed too often."""

    def __init__(self, connection: Connection, clients: list[httpx.AsyncClient]) -> None:
        self._connection = connection
        self._places = [client for client in clients for _ in range(CONNECTIONS_PER_CLIENT)]
        self._patience = connection.patience
        self._pool = ServerPool(connection.urls, connection.max_in_flight, connection.patience)
        self._stopping = asyncio.Event()
        self._scoring_tasks: dict[str, ScoringTask] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._has_answered = False
        self._num_refused = 0

    def stop(self) -> None:
        """Send nothing more."""
        self._stopping.set()
        self._pool.stop()

    async def answer(self, request: Request) -> Reply | None:
        """Return the reply to a request, None if it was not sent because of ``stop``.

        Raises:
            EngineError: a server refuses the key or does not know the model, or none can be reached.
        """
        if (fault := find_fault(request)) is not None:
            return Reply(request.request_id, failure=fault)
        server: Server | None = None
        num_tries = 0
        while (server := await self._pool.acquire(avoid=server)) is not None:
            sent_at, num_answered = time.monotonic(), server.num_answered
            result: Reply | _Trouble = _Trouble(Failure(Reason.SERVER_ERROR, "dropped"), Outcome.UNKNOWN)
            try:
                result = await self._send(server, request)
            finally:
                trouble = result if isinstance(result, _Trouble) else None
                outcome = trouble.outcome if trouble else Outcome.ANSWERED
                self._pool.release(server, outcome, sent_at, trouble.retry_after_seconds if trouble else None)
            if isinstance(result, Reply):
                return result
            # A server that rejects this request but answers others is busy, not broken.
            if not (result.is_throttled and server.num_answered > num_answered):
                num_tries += result.num_tries
            if num_tries >= self._patience.num_tries:
                return Reply(request.request_id, failure=self._hide_key(result.failure))
            seconds = self._patience.pause_seconds(max(1, num_tries))
            # Retry-After may be in the past, by the server's clock, or always 0.
            if result.outcome is not Outcome.UNREACHABLE and (result.retry_after_seconds or 0.0) < seconds:
                await self._pause(seconds)
        return None

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds * random.uniform(0.5, 1.0))

    async def _send(self, server: Server, request: Request) -> Reply | _Trouble:
        seconds = self._connection.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                if not self._connection.scoring_tasks:
                    body = make_chat_body(self._connection.writer, request)
                    response = await self._post(f"{server.url}/chat/completions", body)
                    return self._read(response, request, None)
                task = await self._find_scoring_task(server)
                if isinstance(task, _Trouble):
                    return task
                body = make_score_body(self._connection.model, request, task)
                response = await self._post(_scoring_url(server, task), body)
                return self._read(response, request, task)
        except TimeoutError:
            failure = Failure(Reason.TIMEOUT, f"the server did not answer within {seconds:g} s")
            return _Trouble(failure, num_tries=math.ceil(self._patience.num_tries / 2))
        except (httpx.ConnectError, httpx.ConnectTimeout):
            failure = Failure(Reason.SERVER_ERROR, f"the server at {server.url} cannot be reached")
            return _Trouble(failure, Outcome.UNREACHABLE, num_tries=0)
        except list_passing_transport() as error:
            return _Trouble(Failure(Reason.SERVER_ERROR, f"the connection broke ({type(error).__name__})"))
        except httpx.RequestError as error:
            raise EngineError(
                f"requests to the server at {server.url} fail ({type(error).__name__}: "
                f"{self._connection.hide_key(str(error))}); check 'run.urls' and any proxy in front of the server"
            ) from error

    async def _post(self, url: str, body: dict[str, object]) -> httpx.Response:
        client = self._places.pop()
        try:
            return await client.post(url, content=json.dumps(body, ensure_ascii=False).encode())
        finally:
            self._places.append(client)

    async def _find_scoring_task(self, server: Server) -> ScoringTask | _Trouble:
        """Return the task by which this server returns raw scores; probed once per server."""
        async with self._locks[server.url]:
            if server.url not in self._scoring_tasks:
                for task in self._connection.scoring_tasks:
                    response = await self._post(
                        _scoring_url(server, task), make_probe_body(self._connection.model, task)
                    )
                    if response.status_code in _MISSING:
                        continue
                    if response.is_success:
                        raise EngineError(
                            f"the server at {server.url} cannot give raw scores: it does not know 'use_activation'; "
                            "serve the reward model with vLLM 0.12 or later"
                        )
                    if not response.is_client_error or response.status_code in PASSING_STATUSES | _LOCKED:
                        return self._read_error(response)
                    self._scoring_tasks[server.url] = task
                    break
                else:
                    paths = ", ".join(SCORING_PATHS[task] for task in self._connection.scoring_tasks)
                    raise EngineError(
                        f"the server at {server.url} does not score (it has none of {paths}); "
                        f"serve '{self._connection.model.model}' with `vllm serve --runner pooling`"
                    )
            return self._scoring_tasks[server.url]

    def _read(self, response: httpx.Response, request: Request, task: ScoringTask | None) -> Reply | _Trouble:
        if not response.is_success:
            if response.is_client_error and response.status_code not in PASSING_STATUSES | _MISSING | _LOCKED:
                failure = self._hide_key(read_refusal(response.status_code, read_error_message(response.content)))
                self._count_refusal(failure)
                return Reply(request.request_id, failure=failure)
            return self._read_error(response)
        try:
            data = json.loads(response.content)
            reply = (
                read_completion(request, data, self._connection.writer)
                if task is None
                else read_score(request, data, task)
            )
        except InvalidReplyError as error:
            return _Trouble(Failure(Reason.INVALID_REPLY, str(error)), Outcome.UNKNOWN)
        except (ValueError, RecursionError) as error:
            return _Trouble(Failure(Reason.INVALID_REPLY, f"the reply is not JSON: {error}"), Outcome.UNKNOWN)
        self._has_answered = True
        return reply

    def _count_refusal(self, failure: Failure) -> None:
        """Count a rejection, and raise an EngineError if the settings seem to be wrong rather than the requests."""
        self._num_refused += failure.reason is Reason.REFUSED_BY_ENGINE
        if self._num_refused >= MAX_REFUSED and not self._has_answered:
            raise EngineError(f"all of the first {self._num_refused} requests were refused; {failure.detail}")

    def _read_error(self, response: httpx.Response) -> _Trouble:
        """Return the trouble of an error response that is worth a retry.

        Raises:
            EngineError: a retry is pointless.
        """
        status, url = response.status_code, response.request.url
        message = self._connection.hide_key(read_error_message(response.content))
        if status in _LOCKED:
            raise EngineError(
                f"{url} answers {status} and refuses the key; set the variable that run.api_key_env names "
                f"(it is {self._connection.model.run.api_key_env!r})"
            )
        if status not in PASSING_STATUSES:
            model = self._connection.model.model
            raise EngineError(f"{url} answers {status} for model '{model}': {message}; check 'model' and 'run.urls'")
        return _Trouble(
            Failure(Reason.SERVER_ERROR, f"the server answers {status}: {message}"),
            is_throttled=status in {429, 503},
            retry_after_seconds=read_retry_after(response.headers.get("Retry-After")),
        )

    def _hide_key(self, failure: Failure) -> Failure:
        return replace(failure, detail=self._connection.hide_key(failure.detail))


def _scoring_url(server: Server, task: ScoringTask) -> str:
    """Return the URL of a scoring API, which vLLM serves beside ``/v1``, not below it."""
    return server.url.removesuffix("/v1") + SCORING_PATHS[task]


def read_retry_after(value: str | None) -> float | None:
    """Return the seconds in a Retry-After header (a number or an HTTP date), or None if it is missing or invalid."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
