"""The live page, the metrics and the snapshots over HTTP: mounted into an application, or on a thread of their own."""

from __future__ import annotations

import hmac
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qs, quote

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from speechpool.errors import SettingsError

from .feed import Feed, Pools
from .prometheus import registry_of, taken
from .snapshot import VERSION, Snapshots, Source

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from speechpool.synthesis.blocking import SpeechPool
    from speechpool.synthesis.pool import AsyncSpeechPool

    AnyPool = AsyncSpeechPool | SpeechPool

__all__ = ["PORT", "Monitor", "asgi", "serve", "site"]

PORT: Final = 9464
"""Where metrics are served, as the exporters of OpenTelemetry do."""
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    b"form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
_FREE: Final = ("/healthz", "/page/")
"""What needs no token: it says nothing about anybody."""


def asgi(pools: AnyPool | Sequence[AnyPool], *, token: str | None = None) -> ASGIApp:
    """Return an application to mount, e.g. `app.mount("/speechpool", monitoring.asgi(pool))` in FastAPI.

    Args:
        pools: Entered pools; their names must differ.
        token: What a client must send as `Authorization: Bearer` or `?token=`; None: only loopback's names are served.

    Raises:
        SettingsError: Two pools have one name, or the token is empty.
        PoolClosed: One was never entered.
    """
    sources = _sources(pools)
    return site(lambda: [one.to_dict() for one in taken(sources)], sources, token=token)[0]


def site(
    take: Callable[[], Pools], sources: Sequence[Snapshots] = (), *, token: str | None = None
) -> tuple[ASGIApp, Feed]:
    """Return the application and its feed: `take` returns the pools as dicts, `sources` are those of the metrics.

    The sources are closed with the feed.

    Raises:
        SettingsError: The token is empty.
    """

    def let_go() -> None:
        for source in sources:
            source.close()

    token = _checked(token)
    feed = Feed(take, let_go)
    registry = registry_of(sources)

    async def events(_: Request) -> Response:
        return StreamingResponse(_sent(feed), media_type="text/event-stream")

    async def snapshot(request: Request) -> Response:
        seq = request.query_params.get("seq", "")
        pools = feed.again(int(seq)) if seq.isascii() and seq.isdigit() else await feed.now()
        return JSONResponse({"version": VERSION, "pools": pools})

    def metrics(request: Request) -> Response:  # Starlette runs it in a thread, because pools may be busy
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=kind)

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    routes = [
        Route("/metrics", metrics), Route("/snapshot.json", snapshot),
        Route("/events", events), Route("/healthz", health),
        Mount("/page", StaticFiles(packages=[("speechpool.monitoring", "page")])),
        Mount("/", StaticFiles(packages=[("speechpool.monitoring", "page")], html=True)),
    ]  # fmt: skip
    return _Guard(Starlette(routes=routes), token), feed


async def _sent(feed: Feed) -> AsyncIterator[str]:
    async for pools in feed.watch():
        yield f"data: {json.dumps({'version': VERSION, 'pools': pools}, separators=(',', ':'))}\n\n"


class _Guard:
    """Answers only who may ask, and adds the headers that keep a page to itself."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await (refusal or self._app)(scope, receive, sending)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._token is None:
            host = _name(headers.get(b"host", b"").decode("latin-1"))
            if host not in LOOPBACK:  # a page elsewhere whose name was rebound to this machine
                return PlainTextResponse(f"Host {host!r} is not loopback; serve with a token.\n", 403)
        elif not path.startswith(_FREE) and not self._knows(headers, scope["query_string"]):
            return PlainTextResponse("Send the token: Authorization: Bearer TOKEN, or ?token=TOKEN.\n", 401)
        return None

    def _knows(self, headers: dict[bytes, bytes], query: bytes) -> bool:
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        offered = given if scheme.lower() == b"bearer" else parse_qs(query).get(b"token", [b""])[0]
        return hmac.compare_digest(offered.strip(), (self._token or "").encode())


def _checked(token: str | None) -> str | None:
    if token is None or token.strip():
        return token and token.strip()  # one from a file ends with a newline, which no header can hold
    raise SettingsError("the token of monitoring is empty, so anybody would know it; give one, or None for loopback.")


def _name(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.rpartition(":")[0] or host


class Monitor:
    """A monitor that listens; leave it with `close()`, or use it as a context manager.

    Attributes:
        url: Of the live page; with its token.
    """

    def __init__(self, app: ASGIApp, feed: Feed, listener: socket.socket, url: str) -> None:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, log_level="warning", lifespan="off", ws="none", server_header=False,
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        self.url = url
        self._feed, self._listener = feed, listener
        self._server = _Server(config, feed)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="speechpool-monitor", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening, end what is open, and wait for the thread. A second call does nothing."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, feed: Feed) -> None:
        super().__init__(config)
        self._feed = feed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._feed.close()  # else those who watch would be waited for
        await super().shutdown(sockets)


def serve(
    pools: AnyPool | Sequence[AnyPool], port: int = PORT, host: str = "127.0.0.1", *, token: str | None = None
) -> Monitor:
    """Serve the live page at `/`, `/metrics` for Prometheus, `/snapshot.json`, `/events` and `/healthz`.

    It runs on a thread of its own and asks the loops of the pools for their numbers, so it serves both kinds of pools.

    Args:
        pools: Entered pools; their names must differ.
        port: 0: a free one.
        host: Beyond loopback it needs a token.
        token: What a client must send.

    Raises:
        SettingsError: The host needs a token, the token is empty, the port cannot be had, or two pools have one name.
        PoolClosed: A pool was never entered.
    """
    sources = _sources(pools)
    app, feed = site(lambda: [one.to_dict() for one in taken(sources)], sources, token=token)
    return listen(app, feed, port, host, token=token)


def listen(app: ASGIApp, feed: Feed, port: int, host: str, *, token: str | None) -> Monitor:
    """Serve an application of `site` on a thread of its own, as `serve` does."""
    if token is None and host not in LOOPBACK:
        raise SettingsError(
            f"monitoring on host {host!r} can be reached from other machines, so it needs a token; "
            "give one, or take host='127.0.0.1'."
        )
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise SettingsError(
            f"monitoring cannot listen on {host}:{port}: {error.strerror}; take another port, or 0 for a free one."
        ) from error
    shown = f"[{host}]" if ":" in host else host
    query = "" if token is None else f"?token={quote(token.strip())}"
    return Monitor(app, feed, listener, f"http://{shown}:{listener.getsockname()[1]}/{query}")


def _sources(pools: AnyPool | Sequence[AnyPool]) -> list[Source]:
    sources = [Source(pool) for pool in (pools if isinstance(pools, Sequence) else [pools])]
    names = [source.name for source in sources]
    if twice := {name for name in names if names.count(name) > 1}:
        raise SettingsError(f"two pools are named {min(twice)!r}, so their numbers would mix; give each a name.")
    return sources
