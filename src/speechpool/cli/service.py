"""`speechpool service`: the local speech service in the foreground."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated

import typer

from speechpool.errors import SettingsError

if TYPE_CHECKING:
    from speechpool.service import SpeechService

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("service")(service)


def service(
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Without a key, only this machine's own.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0: any free one.", min=0, max=65535)] = 8765,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="Key that clients must send; none: any will do. Others can see flags, so rather set "
            "SPEECHPOOL_SERVICE__API_KEY.",
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="hibari (a real voice), replay (for load), or marker (for tests).")
    ] = "hibari",
    profile: Annotated[
        str | None, typer.Option(help="Delays of the replay engine: unpaced, healthy, documented.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Threads that speak; unset: one a core.", min=1)] = None,
    max_queue: Annotated[int, typer.Option(help="Tasks that may wait for their first audio.", min=1)] = 200,
    max_connections: Annotated[int, typer.Option(help="Connections at once.", min=1)] = 2000,
    drain: Annotated[float, typer.Option(help="Seconds that running tasks get after SIGTERM.", min=0)] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Say where it listens as one line of JSON.")] = False,
) -> None:
    """Run a local speech service that speaks the provider's protocol.

    SIGTERM lets running tasks finish, then leaves with 0; Ctrl-C ends at once, with 0, too.
    """
    built = _build(
        host=host,
        port=port,
        api_key=api_key,
        engine=engine,
        profile=profile,
        workers=workers,
        max_queue=max_queue,
        max_connections=max_connections,
    )
    from speechpool.service.running import run

    _run_loop(run(built, drain=drain, on_listening=_announce_json if as_json else _announce))


def _build(
    *,
    host: str,
    port: int,
    api_key: str | None,
    engine: str,
    profile: str | None,
    workers: int | None,
    max_queue: int,
    max_connections: int,
) -> SpeechService:
    try:
        from speechpool.service import ServiceSettings, SpeechService
        from speechpool.service.backend import LocalBackend

        backend = LocalBackend(engine=engine, profile=profile, workers=workers, max_queue=max_queue)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("speechpool"):
            raise
        raise SettingsError(
            f"the speech service needs the package {error.name!r}: pip install 'speechpool[service]'"
        ) from error
    settings = ServiceSettings(max_connections=max_connections)
    return SpeechService(backend, host=host, port=port, api_key=api_key, settings=settings)


def _announce(service: SpeechService) -> None:
    typer.echo(f"listening on {service.url}")
    sys.stdout.flush()
    base = service.url.removesuffix("/api-ws/v1/inference")
    pages = base.replace("ws://", "http://", 1)
    typer.echo(
        f'Say something:  speechpool say "Hello." -o hello.mp3 --endpoint {base}\n'
        f"Health, voices: {pages}/healthz  {pages}/voices\n"
        "Stop:           Ctrl-C",
        err=True,
    )


def _announce_json(service: SpeechService) -> None:
    facts = {"url": service.url, "port": service.port, "engine": service.engine, "profile": service.profile}
    typer.echo(json.dumps(facts))
    sys.stdout.flush()


def _run_loop(main: Coroutine[None, None, None]) -> None:
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(main)
    else:
        uvloop.run(main)
