"""The faults of a proxy over HTTP, on loopback: for load generators and shells.

    GET    /            what acts, and what went through
    POST   /faults      {"fault": "latency@both:50ms"}: 201, and the fault with its number
    DELETE /faults/3    that one; DELETE /faults: all
    POST   /cut         {"reset": true}: end all connections that exist now

The `Host` header must name loopback, so that no web page can reach it by a name of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Final

from speechpool.errors import SettingsError

from .proxy import ActiveFault, FaultProxy

__all__ = ["control", "state_of"]

_LARGEST_HEAD: Final = 16_384
_LARGEST_BODY: Final = 65_536
_PATIENCE: Final = 5.0
"""Seconds for a request."""
_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")


class _Problem(Exception):
    """A request that cannot be done: the status and why."""


def state_of(proxy: FaultProxy) -> dict[str, Any]:
    """Return what acts, and what went through, as JSON knows it."""
    host, port = proxy.address
    return {
        "listen": f"{host}:{port}",
        "faults": [_described(active) for active in proxy.faults],
        "counts": asdict(proxy.counts),
    }


def _described(active: ActiveFault) -> dict[str, Any]:
    return {"number": active.number, "fault": str(active.placed), "strikes": active.strikes}


@contextlib.asynccontextmanager
async def control(proxy: FaultProxy, port: int = 0) -> AsyncIterator[int]:
    """Serve the control of `proxy` on 127.0.0.1 while the block runs, and yield the port."""
    requests: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = asyncio.get_running_loop().create_task(_serve(proxy, reader, writer))
        requests.add(request)
        request.add_done_callback(requests.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", port, limit=_LARGEST_HEAD)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        await server.wait_closed()


async def _serve(proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request, and close."""
    try:
        async with asyncio.timeout(_PATIENCE):
            try:
                status, answer = _answer(proxy, *await _request(reader))
            except _Problem as problem:
                status, answer = problem.args[0], {"error": problem.args[1]}
            body = json.dumps(answer).encode()
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        pass  # whoever asked is gone
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, Any]]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise _Problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {_LARGEST_HEAD} bytes") from None
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3:
        raise _Problem(HTTPStatus.BAD_REQUEST, "this is no HTTP request")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("host", "").rsplit(":", 1)[0].lower() not in _LOOPBACK:
        raise _Problem(HTTPStatus.FORBIDDEN, f"the Host header must name one of {', '.join(_LOOPBACK)}")
    return parts[0], parts[1], await _body(reader, headers.get("content-length", "0"))


async def _body(reader: asyncio.StreamReader, length: str) -> dict[str, Any]:
    if not length.isdecimal() or int(length) > _LARGEST_BODY:
        raise _Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Content-Length = {length!r} must be 0 to {_LARGEST_BODY}")
    text = await reader.readexactly(int(length))
    try:
        body = json.loads(text or b"{}")
    except ValueError as error:
        raise _Problem(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise _Problem(HTTPStatus.BAD_REQUEST, 'the body must be an object, e.g. {"fault": "latency:50ms"}')
    return body


def _answer(proxy: FaultProxy, method: str, path: str, body: dict[str, Any]) -> tuple[HTTPStatus, dict[str, Any]]:
    match method, path.strip("/").split("/"):
        case "GET", [""]:
            return HTTPStatus.OK, state_of(proxy)
        case "POST", ["faults"]:
            try:
                return HTTPStatus.CREATED, _described(proxy.add(str(body.get("fault", ""))))
            except SettingsError as error:
                raise _Problem(HTTPStatus.BAD_REQUEST, str(error)) from error
        case "DELETE", ["faults"]:
            proxy.clear()
            return HTTPStatus.OK, state_of(proxy)
        case "DELETE", ["faults", number]:
            for active in proxy.faults:
                if str(active.number) == number:
                    active.remove()
                    return HTTPStatus.OK, state_of(proxy)
            raise _Problem(HTTPStatus.NOT_FOUND, f"no fault {number} acts; GET / lists those that do")
        case "POST", ["cut"]:
            return HTTPStatus.OK, {"cut": proxy.cut(reset=body.get("reset", True) is not False)}
        case _:
            raise _Problem(HTTPStatus.NOT_FOUND, "there are GET /, POST /faults, DELETE /faults[/NUMBER] and POST /cut")
