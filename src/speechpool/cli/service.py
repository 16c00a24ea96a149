"""`speechpool service`: the local speech service in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from speechpool.errors import SettingsError

from . import service_flags as flags

if TYPE_CHECKING:
    from speechpool.service import LocalBackend, ServiceSettings, SpeechService

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("service", cls=flags.ServiceCommand)(service)


def service(
    *,
    host: flags.Host = "127.0.0.1",
    port: flags.Port = 8765,
    api_key: flags.ApiKey = None,
    tls_cert: flags.TlsCert = None,
    tls_key: flags.TlsKey = None,
    allow_origin: flags.AllowOrigin = None,
    max_connections: flags.MaxConnections = 2000,
    max_connections_per_key: flags.MaxConnectionsPerKey = None,
    max_connections_per_address: flags.MaxConnectionsPerAddress = None,
    drain: flags.Drain = 30.0,
    monitor: flags.Monitor = None,
    engine: flags.Engine = "auto",
    profile: flags.Profile = None,
    workers: flags.Workers = None,
    max_queue: flags.MaxQueue = 200,
    max_first_audio: flags.MaxFirstAudio = "1",
    voices: flags.Voices = False,
    text_gap: flags.TextGap = "23",
    idle_timeout: flags.IdleTimeout = "60",
    submission_rate: flags.SubmissionRate = "3",
    max_tasks_per_key: flags.MaxTasksPerKey = None,
    early_text: flags.EarlyText = False,
    older_events: flags.OlderEvents = False,
    fault: flags.Faults = None,
    as_json: flags.Json = False,
) -> None:
    """Run a local speech service that speaks the provider's protocol.

    SIGTERM lets running tasks finish, then leaves with 0; Ctrl-C ends at once, with 0, too.
    """
    from .certificates import server_context

    tls = server_context(tls_cert, tls_key)
    with _extra():
        from speechpool.service import LocalBackend, ServiceSettings, SpeechService
        from speechpool.service.faults import Faults

        backend = LocalBackend(
            engine=engine, profile=profile, workers=workers, max_queue=max_queue, max_first_audio=max_first_audio
        )
    if voices:
        _list(backend, as_json=as_json)
        return
    settings = ServiceSettings(
        max_connections=max_connections,
        max_connections_per_key=max_connections_per_key,
        max_connections_per_address=max_connections_per_address,
        text_gap=text_gap,
        idle_timeout=idle_timeout,
        submission_rate=submission_rate,
        max_tasks_per_key=max_tasks_per_key,
        early_text=early_text,
        older_events=older_events,
    )
    faults = Faults.parse(fault) if fault else None
    built = SpeechService(
        backend,
        host=host,
        port=port,
        api_key=api_key,
        settings=settings,
        ssl=tls,
        allowed_origins=allow_origin or (),
        faults=faults,
    )
    from speechpool.service.running import run
    from speechpool.transport.descriptors import raise_soft_limit

    raise_soft_limit()
    remarks = [_limits(settings), *([f"Faults: {', '.join(map(str, faults.faults))}."] if faults else [])]
    with contextlib.ExitStack() as stack:

        def announce(service: SpeechService) -> None:
            page = None
            if monitor is not None:
                from speechpool.service.monitor import monitored

                page = stack.enter_context(monitored(service, monitor)).url
            _announce_json(service, page) if as_json else _announce(service, remarks, page)

        _run_loop(run(built, drain=drain, on_listening=announce))


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("speechpool"):
            raise
        raise SettingsError(
            f"the speech service needs the package {error.name!r}: pip install 'speechpool[service]'"
        ) from error


# ------------------------------------------------------------------------------------ what it says
def _list(backend: LocalBackend, *, as_json: bool) -> None:
    import msgspec

    voices = msgspec.to_builtins(backend.voices())
    if as_json:
        typer.echo(json.dumps(voices))
        return
    lines = [[str(value) for value in voice.values()] for voice in voices]
    header = list(voices[0]) if voices else []
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    for line in (header, *lines):
        typer.echo("  ".join(f"{value:<{width}}" for value, width in zip(line, widths, strict=True)).rstrip())


def _limits(settings: ServiceSettings) -> str:
    """One line: what a client may run into."""
    rate, gap, idle = settings.submission_rate, settings.text_gap, settings.idle_timeout
    limits = [
        *([f"{rate:g} task starts/s of one key and model (--submission-rate none turns it off)"] if rate else []),
        *([f"pauses in a text {gap:g} s (--text-gap)"] if gap else []),
        *([f"idle connections {idle:g} s (--idle-timeout)"] if idle else []),
    ]
    return f"Limits, as the provider documents them: {', '.join(limits) or 'all turned off'}."


def _announce(service: SpeechService, remarks: Sequence[str], page: str | None) -> None:
    typer.echo(f"listening on {service.url}")
    sys.stdout.flush()
    base = service.url.removesuffix("/api-ws/v1/inference")
    secure = base.startswith("wss://")
    pages = base.replace("ws", "http", 1)
    typer.echo(
        f'Say something:  speechpool say "Hello." -o hello.mp3 --endpoint {base}{" --tls-ca FILE" if secure else ""}\n'
        f"Health, voices: {pages}/healthz  {pages}/voices\n{f'Live page:      {page}' + chr(10) if page else ''}"
        "Stop:           Ctrl-C",
        err=True,
    )
    for remark in remarks:
        typer.echo(remark, err=True)


def _announce_json(service: SpeechService, page: str | None) -> None:
    facts = {"url": service.url, "port": service.port, "engine": service.engine, "profile": service.profile}
    if page is not None:
        facts["monitor"] = page
    typer.echo(json.dumps(facts))
    sys.stdout.flush()


def _run_loop(main: Coroutine[None, None, None]) -> None:
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(main)
    else:
        uvloop.run(main)
