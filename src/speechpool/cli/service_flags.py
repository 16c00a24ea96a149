"""The flags of `speechpool service`, in the groups in which its help shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand

__all__ = [
    "AllowOrigin",
    "ApiKey",
    "Drain",
    "EarlyText",
    "Engine",
    "Faults",
    "Host",
    "IdleTimeout",
    "Json",
    "MaxConnections",
    "MaxConnectionsPerAddress",
    "MaxConnectionsPerKey",
    "MaxFirstAudio",
    "MaxQueue",
    "MaxTasksPerKey",
    "Monitor",
    "OlderEvents",
    "Port",
    "Profile",
    "ServiceCommand",
    "SubmissionRate",
    "TextGap",
    "TlsCert",
    "TlsKey",
    "Voices",
    "Workers",
]

_SPEECH: Final = "Speech"
_ACCESS: Final = "Address and access"
_PROVIDER: Final = "Limits, as the provider documents them"
_TESTS: Final = "Tests of clients"


def _limit(value: Any) -> float | None:
    """Read a number, or `none` for no limit."""
    if str(value).strip().lower() == "none":
        return None
    try:
        return float(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is neither a number nor 'none'") from None


def _option(panel: str, text: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **options)


Host = Annotated[str, _option(_ACCESS, "Address to listen on. Without a key, only this machine's own.")]
Port = Annotated[int, _option(_ACCESS, "Port; 0: any free one.", min=0, max=65535)]
ApiKey = Annotated[
    str | None,
    _option(
        _ACCESS,
        "Key that clients must send; none: any will do. Others can see flags, so rather set "
        "SPEECHPOOL_SERVICE__API_KEY.",
    ),
]
TlsCert = Annotated[
    Path | None, _option(_ACCESS, "PEM file with the certificate: the service speaks wss. Needs --tls-key.")
]
TlsKey = Annotated[Path | None, _option(_ACCESS, "PEM file with its private key, not encrypted.")]
AllowOrigin = Annotated[
    list[str] | None,
    _option(_ACCESS, "Web page that may connect, e.g. https://example.com; '*': any. Repeatable."),
]
MaxConnections = Annotated[int, _option(_ACCESS, "Connections at once.", min=1, metavar="N")]
MaxConnectionsPerKey = Annotated[
    int | None, _option(_ACCESS, "Connections of one key at once; unset: any.", min=1, metavar="N")
]
MaxConnectionsPerAddress = Annotated[
    int | None, _option(_ACCESS, "Connections of one address at once; unset: any.", min=1, metavar="N")
]
Monitor = Annotated[
    int | None,
    _option(
        _ACCESS,
        "Port of a live page of the service itself, for this machine only; 0: any free one.",
        min=0,
        max=65535,
        metavar="PORT",
    ),
]
Drain = Annotated[float, _option(_ACCESS, "Seconds that running tasks get after SIGTERM.", min=0)]

Engine = Annotated[
    str,
    _option(
        _SPEECH,
        "auto (hibari for English, espeak for the rest), hibari, espeak, replay (for load), or marker (for tests).",
    ),
]
Profile = Annotated[str | None, _option(_SPEECH, "Delays of the replay engine: unpaced, healthy, documented.")]
Workers = Annotated[int | None, _option(_SPEECH, "Threads that speak; unset: one a core.", min=1)]
MaxQueue = Annotated[int, _option(_SPEECH, "Tasks that may wait for their first audio.", min=1)]
MaxFirstAudio = Annotated[
    Any,
    _option(
        _SPEECH,
        "A task whose first audio would take longer is throttled at once; none: every task is taken.",
        parser=_limit,
        metavar="SECONDS|none",
    ),
]
Voices = Annotated[bool, _option(_SPEECH, "List the voices, as JSON with --json, and leave.", "--voices")]

TextGap = Annotated[
    Any,
    _option(_PROVIDER, "Longest pause in the text of a task, or none.", parser=_limit, metavar="SECONDS|none"),
]
IdleTimeout = Annotated[
    Any,
    _option(_PROVIDER, "Longest pause between tasks, or none.", parser=_limit, metavar="SECONDS|none"),
]
SubmissionRate = Annotated[
    Any,
    _option(_PROVIDER, "Task starts a second of one key and model, or none.", parser=_limit, metavar="NUMBER|none"),
]
MaxTasksPerKey = Annotated[int | None, _option(_PROVIDER, "Tasks of one key at once; unset: any.", min=1, metavar="N")]
EarlyText = Annotated[
    bool, _option(_PROVIDER, "Take text that comes before task-started, as the Java SDK sends it.", "--early-text")
]
OlderEvents = Annotated[bool, _option(_PROVIDER, "Send the events of the protocol's first version.", "--older-events")]

Faults = Annotated[
    list[str] | None,
    _option(_TESTS, "What shall go wrong; see below. Repeatable.", "--fault", metavar="KIND[@PHASE][:VALUE][~SHARE]"),
]
Json = Annotated[bool, typer.Option("--json", help="Say where it listens as one line of JSON.")]


class ServiceCommand(TyperCommand):
    """The verb, whose help lists the faults. They are looked up only then: their floor takes half a second to load."""

    def format_help(self, *arguments: Any) -> None:
        """Show the help."""
        self.epilog = _faults()
        super().format_help(*arguments)


def _faults() -> str:
    try:
        from speechpool.service.fault_kinds import FAULTS, PHASES
    except ModuleNotFoundError:
        return "The faults are listed where the extra 'service' is installed: pip install 'speechpool[service]'"
    kinds = [f"{kind.name:<18} {kind.meaning}{_with(kind)}" for kind in FAULTS]
    phases = [f"{name:<18} {meaning}" for name, meaning in PHASES.items()]
    return "\n".join((
        "Faults:\n", *kinds, "\nPhases; without one, a fault strikes where it makes most sense:\n", *phases,
        "\nA value is a time (100ms, 2s), a status, a close code or an error code; a share is 0.1 or 10%.",
    ))  # fmt: skip


def _with(kind: Any) -> str:
    return f" ({kind.default})" if kind.default else ""
