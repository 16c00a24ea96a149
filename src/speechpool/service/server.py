"""The local speech service: a port, its keys and pages, one session a connection.

    GET /api-ws/v1/inference   the WebSocket; any path that ends so, with or without a slash behind it
    GET /healthz               status, engine, profile, tasks, connections, version as JSON
    GET /voices                the voices as JSON

Draining: the port stays open for `/healthz` while tasks finish, but no connection is let in; those without a task are
closed with 1001, the others when their task has ended.

Who may come in is decided in `door`; what goes wrong on purpose, in `faults`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
from collections.abc import Collection
from importlib.metadata import version
from ssl import SSLContext
from types import TracebackType
from typing import Final, Self

import msgspec

from speechpool.errors import SettingsError
from speechpool.transport import Accepted, Greeting, Listener, Refusal, Request, serve

from .backend import Backend
from .counts import Counts
from .door import Door, Guests, Rebuff, address_of
from .faults import Faults
from .faulty import with_faults
from .limits import ServiceSettings
from .origins import is_loopback
from .session import SpeechSession
from .submissions import Submissions
from .watch import Watch

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
        ssl: A server's TLS context with a certificate; None: no TLS.
        allowed_origins: Web pages that may connect, such as `https://example.com`; `*`: any. The service's own origin
            may always.
        faults: What shall go wrong; None: nothing.

    Attributes:
        counts: What it has done so far.
        watch: The same as the five signals, since the start; None before it.

    Raises:
        SettingsError: There is no `api_key`, but `host` can be reached by other machines; the port is out of range; or
            an origin is none.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        host: str = "127.0.0.1",
        port: int = 8765,
        api_key: str | None = None,
        settings: ServiceSettings = ServiceSettings(),  # noqa: B008  # frozen
        ssl: SSLContext | None = None,
        allowed_origins: Collection[str] = (),
        faults: Faults | None = None,
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
        self._settings = settings
        self._ssl = ssl
        self._faults = faults
        # A key that was read from a file may end with a line break, and no header brings that along.
        self._door = Door(api_key and api_key.strip(), settings, allowed_origins)
        self._listener: Listener | None = None
        self._sessions = Guests()
        self._submissions = Submissions(settings.submission_rate, settings.max_tasks_per_key)
        self._draining = False
        self._version = version("speechpool")  # read from a file, so not for each page
        self._headers = {"X-Speechpool-Engine": backend.engine}
        if backend.profile is not None:
            self._headers["X-Speechpool-Profile"] = backend.profile
        self.counts = Counts()
        self.watch: Watch | None = None

    # ---------------------------------------------------------------------------------- life
    async def start(self) -> None:
        """Start the backend, then listen.

        Raises:
            SettingsError: The address cannot be bound.
        """
        self._draining = False
        self.watch = Watch(asyncio.get_running_loop().time)
        await self._backend.start()
        try:
            # "localhost" may stand for two addresses, and any free port would be another one on each.
            host = "127.0.0.1" if self._host == "localhost" else self._host
            self._listener = await serve(
                self._accept,
                host,
                self._wanted_port,
                ssl=self._ssl,
                max_message=self._settings.max_frame,
                handshake_timeout=self._settings.handshake_timeout,
                greet=self._greet if self._faults else None,
            )
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
        return f"{'wss' if self._ssl else 'ws'}://{host}:{self.port}{PATH}"

    @property
    def engine(self) -> str:
        """The engine that speaks."""
        return self._backend.engine

    @property
    def profile(self) -> str | None:
        """The engine's profile, where it has one."""
        return self._backend.profile

    @property
    def draining(self) -> bool:
        """Whether it lets no connection in any more."""
        return self._draining

    @property
    def max_connections(self) -> int:
        """Connections that it takes at once."""
        return self._settings.max_connections

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._sessions)

    # ---------------------------------------------------------------------------------- the door
    def _greet(self, path: str) -> Greeting:
        if self._faults is None or not _is_ours(path):
            return Greeting()
        fault = self._faults.handshake()
        refusal = None
        if fault.status is not None and not (fault.drop or fault.stall):
            pause = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            refusal = self._refuse(fault.status, "InjectedFault", "This service refuses on purpose (--fault).", pause)
        return Greeting(math.inf if fault.stall else fault.delay, fault.drop, refusal)

    def _accept(self, request: Request) -> Accepted | Refusal:
        try:
            self._door.check_name(request)
            if _is_ours(request.path):
                return self._let_in(request)
        except Rebuff as rebuff:
            return self._refuse(rebuff.status, rebuff.code, rebuff.message)
        if request.path == "/healthz":
            return self._page(200, self._health())
        if request.path == "/voices":
            return self._page(200, self._backend.voices())
        return self._page(404, {"code": "NotFound", "message": f"There is nothing here; the service is at {PATH}."})

    def _let_in(self, request: Request) -> Accepted:
        client = self._door.check_guest(request, self._sessions)
        if self._draining:
            raise Rebuff(503, "ServiceUnavailable", "The service is going away.")
        session = SpeechSession(
            self._backend,
            self._settings,
            self.counts,
            self._sessions,
            submissions=self._submissions,
            client=client,
            watch=self.watch,
        )
        self._sessions.invite(session, client, address_of(request))
        return Accepted(with_faults(session, self._faults), self._headers)

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Refusal:
        self.counts.refused += 1
        return self._page(status, {"code": code, "message": message}, headers)

    def _page(self, status: int, content: object, headers: dict[str, str] | None = None) -> Refusal:
        return Refusal(status, msgspec.json.encode(content), {**_JSON, **self._headers, **(headers or {})})

    def _health(self) -> dict[str, object]:
        return {
            "status": "draining" if self._draining else "ok",
            "engine": self._backend.engine,
            "profile": self._backend.profile,
            "tasks_running": self.counts.running,
            "tasks": self.counts.tasks,
            "connections": len(self._sessions),
            "version": self._version,
        }


def _is_ours(path: str) -> bool:
    return path.rstrip("/").endswith(PATH)


def _cannot_bind(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; stop its program, or choose another (--port 0: any free one)."
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not allowed for this user; choose one above 1023."
    return f"{host}:{port} cannot be bound: {error.strerror or error}."
