"""What a Prefect server is told of a run, from a thread of its own: the run never waits for it, nor fails with it.

Reports wait in an outbox and are sent in their order. A server that is lost is one warning; it is asked again now and
then, and at the end the user is told what it was never told.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    get_current_settings,
    temporary_settings,
)

from flows.lanes.progress import TellProgress
from flows.lanes.side_by_side import UNWATCHED
from flows.prefect_settings import show_url
from schemas.errors import BuildStoppedError
from schemas.passing import is_passing

FLOW = "build"
"""The name of the flow on the server, of scheduled runs and of others."""

ANSWER_SECONDS = 10.0
"""How long the server may take to answer, also at the end of a run, where Prefect's ``api.request_timeout`` is not set."""

NUM_TRIES = 3
"""A server that fails so often in a row is lost; one that has not answered in time is lost at once."""

PAUSE_SECONDS = 0.5
LOST_SECONDS = 30.0
"""How often a lost server is asked again."""

NUM_CLOSING_WAITS = 6
"""How many times as long, in all, a run that has ended waits for a server that answers, but is slow."""


@dataclass(slots=True)
class FlowRun:
    """The run on the server: one that is to be made, or, with an ``id``, one that Prefect has started and will end."""

    id: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Report:
    """``about`` is what the user is told of if the server never is."""

    about: str
    send: Callable[[SyncPrefectClient], object]


class Reporter:
    """A watcher that tells a Prefect server of a run: each piece of work as a task run, each table as an artifact."""

    def __init__(self, url: str, run: FlowRun, say: Callable[[str], None]) -> None:
        self.say = say
        self._url = url
        self._run = run
        self._is_own = run.id is None
        self._artifacts: dict[str, str] = {}
        self._outbox = _Outbox(url, say)

    def __enter__(self) -> Self:
        self._outbox.start()
        if self._is_own:
            key = str(uuid.uuid4())
            self._outbox.put("start", "the start of the run", lambda client: self._start(client, key))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._is_own:
            state = _state_after(error)
            about = f"the end of the run ({state['type'].lower()})"
            self._outbox.put("end", about, lambda client: _force(client, f"/flow_runs/{self._id()}", state))
        self._outbox.close()

    def begin(self) -> None:
        """Nothing to do: the server is told of all of it."""

    @contextlib.contextmanager
    def piece(self, name: str) -> Iterator[TellProgress | None]:
        """Show a piece of work as a task run."""
        piece_id = str(uuid.uuid4())

        def put(what: str, send: Callable[[SyncPrefectClient], None]) -> None:
            self._outbox.put(f"{what} {piece_id}", f"'{name}'", send)

        def end(state: dict[str, str]) -> None:
            put("end", lambda client: _force(client, f"/task_runs/{piece_id}", state))

        def progress(percent: float, line: str) -> None:
            put("progress", lambda client: self._show_progress(client, piece_id, percent, f"{name}: {line}"))

        put("start", lambda client: self._start_piece(client, piece_id, name))
        try:
            yield progress
        except BaseException as error:
            end(_state_after(error))
            raise
        end({"type": "COMPLETED"})

    def table(self, key: str, markdown: str) -> None:
        """Show a table as an artifact of the run."""
        shown = {"key": key, "type": "markdown", "data": markdown}
        self._outbox.put(
            f"table {key}",
            f"the table {key}",
            lambda client: _post(client, "/artifacts/", shown | {"flow_run_id": self._id()}),
        )

    def _id(self) -> str:
        if self._run.id is None:
            raise LookupError("it knows nothing of the run")
        return self._run.id

    def _start(self, client: SyncPrefectClient, key: str) -> None:
        flow = _post(client, "/flows/", {"name": FLOW})
        run = {"flow_id": flow["id"], "parameters": self._run.parameters, "idempotency_key": key}
        made = _post(client, "/flow_runs/", run)
        _force(client, f"/flow_runs/{made['id']}", {"type": "RUNNING"})
        self._run.id = made["id"]

    def _start_piece(self, client: SyncPrefectClient, piece_id: str, name: str) -> None:
        keys = {"id": piece_id, "task_key": "lane", "dynamic_key": piece_id, "flow_run_id": self._id()}
        _post(client, "/task_runs/", keys | {"name": name})
        _force(client, f"/task_runs/{piece_id}", {"type": "RUNNING"})

    def _show_progress(self, client: SyncPrefectClient, piece_id: str, percent: float, text: str) -> None:
        shown = {"data": percent, "description": text}
        if piece_id in self._artifacts:
            client.request("PATCH", f"/artifacts/{self._artifacts[piece_id]}", json=shown)  # type: ignore[arg-type]
        else:
            of = {"type": "progress", "flow_run_id": self._id(), "task_run_id": piece_id}
            self._artifacts[piece_id] = _post(client, "/artifacts/", shown | of)["id"]


class _Outbox:
    """Reports on their way to the server. Nothing here raises: a report that cannot be sent is kept, to be said.

    A report over which the server fails again and again is given up if the server then takes another.
    """

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        self._url = url
        self._say = say
        self._patience = _find_patience()
        self._last_answer = time.monotonic()
        self._waiting: dict[str, _Report] = {}
        self._refused: list[str] = []
        self._changed = threading.Condition()
        self._is_closing = False
        self._num_failures = 0
        self._has_warned = False
        self._thread = threading.Thread(target=self._run, name="prefect-reporter", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, key: str, about: str, send: Callable[[SyncPrefectClient], object]) -> None:
        """Have a report sent after those before it; it takes the place of one of the same key that still waits."""
        with self._changed:
            self._waiting[key] = _Report(about, send)
            self._changed.notify_all()

    def close(self) -> None:
        """Send what waits, unless the server is lost, and say what it was not told of."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._last_answer = started = time.monotonic()
        latest = started + NUM_CLOSING_WAITS * self._patience
        while self._thread.is_alive() and (
            (left := min(self._last_answer + self._patience, latest) - time.monotonic()) > 0
        ):
            self._thread.join(left)
        with self._changed:
            untold = list(dict.fromkeys([*self._refused, *(report.about for report in self._waiting.values())]))
        if untold:
            if self._thread.is_alive():
                self._warn("does not answer in time")
            self._say(f"not told to the Prefect server at {show_url(self._url)}: {', '.join(untold)}")

    def _run(self) -> None:
        # Without the client's own retries: a report is tried again here, and what is said of a lost server is said once.
        settings = temporary_settings({PREFECT_API_URL: self._url, PREFECT_CLIENT_MAX_RETRIES: 0})
        http = {
            "timeout": httpx.Timeout(self._patience, connect=self._patience / 4),  # the client connects four times
            "event_hooks": {"response": [self._note_answer]},
        }
        with settings, get_client(sync_client=True, httpx_settings=http) as client:
            while self._send_next(client):
                pass

    def _note_answer(self, _: httpx.Response) -> None:
        self._last_answer = time.monotonic()

    def _send_next(self, client: SyncPrefectClient) -> bool:
        """Send the first report that waits, or find that it cannot be; return whether to go on."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            if not self._waiting:
                return False
            (key, report), *others = self._waiting.items()
        error = self._send(client, key, report)
        is_final = error is not None and not is_passing(error)
        if isinstance(error, httpx.HTTPStatusError) and self._num_failures >= NUM_TRIES - 1 and not is_final:
            is_final = self._answers_another(client, others)
            error = self._send(client, key, report) if is_final else error
        if error is not None and not is_final:
            return self._fail(error)
        if error is not None:
            self._warn(f"was not told of {report.about} ({_describe(error)})")
            self._refused.append(report.about)
            self._remove(key, report)
        self._num_failures = 0
        return True

    def _send(self, client: SyncPrefectClient, key: str, report: _Report) -> Exception | None:
        """Send a report, which then waits no longer; return the error if it cannot be sent."""
        try:
            report.send(client)
        except Exception as error:  # whatever it is, it is not the build's
            return error
        self._remove(key, report)
        return None

    def _answers_another(self, client: SyncPrefectClient, others: list[tuple[str, _Report]]) -> bool:
        """Send one of the other reports; return whether it could be: a server that fails over each is not to be told now."""
        for key, report in others:
            error = self._send(client, key, report)
            if error is None:
                return True
            if is_passing(error) and not isinstance(error, httpx.HTTPStatusError):
                return False
        return False

    def _remove(self, key: str, report: _Report) -> None:
        with self._changed:
            if self._waiting.get(key) is report:
                del self._waiting[key]

    def _fail(self, error: Exception) -> bool:
        """Take note that the server has not answered, and pause; return whether to try again."""
        self._num_failures = NUM_TRIES if isinstance(error, httpx.TimeoutException) else self._num_failures + 1
        is_lost = self._num_failures >= NUM_TRIES
        if is_lost:
            self._warn(f"does not answer ({_describe(error)})")
        with self._changed:
            if is_lost and self._is_closing:
                return False
            self._changed.wait_for(lambda: is_lost and self._is_closing, LOST_SECONDS if is_lost else PAUSE_SECONDS)
        return True

    def _warn(self, what: str) -> None:
        with self._changed:
            is_first, self._has_warned = not self._has_warned, True
        if is_first:
            self._say(f"warning: the Prefect server at {show_url(self._url)} {what}; {UNWATCHED}")


def _find_patience() -> float:
    """Return how many seconds the server may take to answer."""
    api = get_current_settings().api
    return api.request_timeout if "request_timeout" in api.model_fields_set else ANSWER_SECONDS


def _post(client: SyncPrefectClient, path: str, body: Mapping[str, object]) -> dict[str, Any]:
    answer: dict[str, Any] = client.request("POST", path, json=body).json()  # type: ignore[arg-type]
    return answer


def _force(client: SyncPrefectClient, run: str, state: dict[str, str]) -> None:
    """Set the state of a flow run or a task run: it has come to be so, whatever the server thinks of it."""
    _post(client, f"{run}/set_state", {"state": state, "force": True})


def _state_after(error: BaseException | None) -> dict[str, str]:
    if error is None:
        return {"type": "COMPLETED"}
    if isinstance(error, BuildStoppedError):
        return {"type": "CANCELLED", "message": str(error)}
    return {"type": "FAILED", "message": f"{type(error).__name__}: {error}"}


def _describe(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}"
    return str(error) if isinstance(error, LookupError) else type(error).__name__
