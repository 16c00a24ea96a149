"""The local speech service: a port, its keys and pages, one session a connection.

    GET /api-ws/v1/inference   the WebSocket; any path that ends so, with or without a slash behind it
    GET /healthz               status, engine, profile, tasks, connections, version as JSON
    GET /voices                the voices as JSON

Draining: the port stays open for `/healthz` while tasks finish, but no connection is let in; those without a task are
closed with 1001, the others when their task has ended.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from importlib.metadata import version
from types import TracebackType
from typing import Final, Self

import msgspec

from speechpool.errors import SettingsError
from speechpool.transport import Accepted, Listener, Refusal, Request, serve

from .backend import Backend
from .counts import Counts
from .keys import is_loopback, is_welcome
from .limits import ServiceSettings
from .session import CosyVoiceSession

__all__ = ["PATH", "SpeechService"]

logger = logging.getLogger("speechpool.service")

PATH: Final = "/api-ws/v1/inference"
_JSON: Final = {"Content-Type": "application/json"}
_FAREWELL: Final = 1.0
"""Seconds that peers get to answer the last close frame."""


class SpeechService:
    """Speaks the provider's protocol on a port of this machine.

    Use it as `async with SpeechService(backend) as service`, or call `start` and `close`. The backend is started and
    closed along with it.

    Args:
        backend: Who speaks.
        host: Name or address to bind.
        port: 0: any free one.
        api_key: The key that clients must send; None: any key will do, and only this machine can reach the service.
        settings: Limits.

    Attributes:
        counts: What it has done so far.

    Raises:
        SettingsError: There is no `api_key`, but `host` can be reached by other machines; or the port is out of range.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        host: str = "127.0.0.1",
        port: int = 8765,
        api_key: str | None = None,
        settings: ServiceSettings = ServiceSettings(),  # noqa: B008  # frozen
    ) -> None:
        if api_key is not None and not api_key.strip():
            raise SettingsError(
                "the service's api_key is empty; give one, or leave it out to accept any key on loopback."
            )
        if api_key is None and not is_loopback(host):
            raise SettingsError(
                f"host {host!r} can be reached by other machines, so the service needs a key: set api_key (--api-key, "
                "SPEECHPOOL_SERVICE__API_KEY), or bind 127.0.0.1."
            )
        if not 0 <= port <= 65535:
            raise SettingsError(f"port {port} is out of range; it goes from 0 (any free one) to 65535.")
        self._backend = backend
        self._host = host
        self._wanted_port = port
        self._api_key = api_key
        self._settings = settings
        self._listener: Listener | None = None
        self._sessions: set[CosyVoiceSession] = set()
        self._draining = False
        self._headers = {"X-Speechpool-Engine": backend.engine}
        if backend.profile is not None:
            self._headers["X-Speechpool-Profile"] = backend.profile
        self.counts = Counts()

    # ---------------------------------------------------------------------------------- life
    async def start(self) -> None:
        """Start the backend, then listen.

        Raises:
            SettingsError: The address cannot be bound.
        """
        await self._backend.start()
        try:
            # "localhost" may stand for two addresses, and any free port would be another one on each.
            host = "127.0.0.1" if self._host == "localhost" else self._host
            self._listener = await serve(self._accept, host, self._wanted_port)
        except OSError as error:
            await self._backend.close()
            raise SettingsError(_cannot_bind(self._host, self._wanted_port, error)) from error
        except BaseException:
            await self._backend.close()
            raise

    async def drain(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # an outcome, not an error
        """Let no connection in any more, and wait until the tasks that run have ended.

        Args:
            timeout: Seconds; None: no limit.

        Returns:
            Whether all tasks ended in time. Those that did not still run.

        Cancellation: the service goes on draining.
        """
        self._draining = True
        for session in list(self._sessions):
            session.drain()
        if self._listener is None:
            return True
        waiting = {asyncio.ensure_future(each.wait_closed()) for each in self._listener.connections}
        if not waiting:
            return True
        try:
            _, pending = await asyncio.wait(waiting, timeout=timeout)
        finally:
            for each in waiting:
                each.cancel()
        return not pending

    async def close(self) -> None:
        """Stop listening, give up the tasks that run, close all connections and the backend.

        Cancellation: the port is closed, the rest may stay behind.
        """
        listener, self._listener = self._listener, None
        self._draining = True
        if listener is None:
            return
        listener.close()
        for session in list(self._sessions):
            session.stop()
        waiting = {asyncio.ensure_future(each.wait_closed()) for each in listener.connections}
        if waiting:
            await asyncio.wait(waiting, timeout=_FAREWELL)
        for each in listener.connections:
            each.abort()
        await listener.wait_closed()
        await self._backend.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # ---------------------------------------------------------------------------------- what it is
    @property
    def port(self) -> int:
        """The port that is bound; before the start, the one that was asked for."""
        return self._wanted_port if self._listener is None else self._listener.port

    @property
    def url(self) -> str:
        """Where clients connect to."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"ws://{host}:{self.port}{PATH}"

    @property
    def engine(self) -> str:
        """The engine that speaks."""
        return self._backend.engine

    @property
    def profile(self) -> str | None:
        """The engine's profile, where it has one."""
        return self._backend.profile

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._sessions)

    # ---------------------------------------------------------------------------------- the door
    def _accept(self, request: Request) -> Accepted | Refusal:
        if request.path.rstrip("/").endswith(PATH):
            return self._let_in(request)
        if request.path == "/healthz":
            return self._page(200, self._health())
        if request.path == "/voices":
            return self._page(200, self._backend.voices())
        return self._page(404, {"code": "NotFound", "message": f"There is nothing here; the service is at {PATH}."})

    def _let_in(self, request: Request) -> Accepted | Refusal:
        # An Origin header is no reason to refuse: websocket-client, and so the official SDK, sends one.
        if not is_welcome(request.headers.get("authorization"), self._api_key):
            return self._refuse(401, "InvalidApiKey", "Invalid API-key provided.")
        if self._draining:
            return self._refuse(503, "ServiceUnavailable", "The service is going away.")
        if len(self._sessions) >= self._settings.max_connections:
            limit = self._settings.max_connections
            return self._refuse(503, "ServiceUnavailable", f"The limit of {limit} connections is reached.")
        session = CosyVoiceSession(self._backend, self._settings, self.counts, self._sessions)
        return Accepted(session, self._headers)

    def _refuse(self, status: int, code: str, message: str) -> Refusal:
        self.counts.refused += 1
        return self._page(status, {"code": code, "message": message})

    def _page(self, status: int, content: object) -> Refusal:
        return Refusal(status, msgspec.json.encode(content), {**_JSON, **self._headers})

    def _health(self) -> dict[str, object]:
        return {
            "status": "draining" if self._draining else "ok",
            "engine": self._backend.engine,
            "profile": self._backend.profile,
            "tasks_running": self.counts.running,
            "tasks": self.counts.tasks,
            "connections": len(self._sessions),
            "version": version("speechpool"),
        }


def _cannot_bind(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; stop its program, or choose another (--port 0: any free one)."
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not allowed for this user; choose one above 1023."
    return f"{host}:{port} cannot be bound: {error.strerror or error}."
