"""A real HTTP server on loopback that behaves, or misbehaves, as a test tells it to."""

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from tests.waiting import GUARD_SECONDS


class _Drop:
    def __repr__(self) -> str:
        return "DROP"


DROP = _Drop()
"""The answer of a script that wants the connection closed without a word."""


@dataclass(frozen=True)
class Call:
    """One request as it came: ``number`` counts from 0 over the life of the server."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float

    @property
    def text(self) -> str:
        return str(self.body["messages"][-1]["content"])


Script = Callable[[Call], Awaitable[Any]]


def completion(text: str | None, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5},
    }


async def echo(call: Call) -> Any:
    return completion(f"echo: {call.text}")


class ScriptedServer:
    """Answers each request with what ``script`` returns: a payload, (status, payload), (.., headers) or ``DROP``.

    A payload is bytes, or something to be sent as JSON.
    """

    def __init__(self, script: Script = echo, port: int = 0) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.num_in_flight = 0
        self.max_in_flight = 0
        self.num_hung_up = 0
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._done = asyncio.Event()
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_ready.wait(GUARD_SECONDS)
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._handle, "127.0.0.1", self._port)
        self._port = server.sockets[0].getsockname()[1]
        self._is_ready.set()
        await self._done.wait()
        server.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                call = await self._read(reader)
                answer = await self._answer(call, reader)
                if answer is DROP:
                    return
                status, payload, headers = (*answer, {})[:3] if isinstance(answer, tuple) else (200, answer, {})
                body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
                lines = [f"HTTP/1.1 {status} Scripted", f"Content-Length: {len(body)}"]
                lines += [f"{name}: {value}" for name, value in headers.items()]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Call:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *fields = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        path = re.fullmatch(r"POST (\S+) HTTP/1.1", line)
        assert path is not None
        call = Call(len(self.calls), path[1], headers, body, asyncio.get_running_loop().time())
        self.calls.append(call)
        return call

    async def _answer(self, call: Call, reader: asyncio.StreamReader) -> Any:
        """Run the script; a client that hangs up meanwhile is counted."""
        self.num_in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.num_in_flight)
        script = asyncio.ensure_future(self.script(call))
        hang_up = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({script, hang_up}, return_when=asyncio.FIRST_COMPLETED)
            if not script.done():
                self.num_hung_up += 1
                return DROP
            return script.result()
        finally:
            for task in (script, hang_up):
                task.cancel()
            await asyncio.gather(script, hang_up, return_exceptions=True)
            self.num_in_flight -= 1
