"""`speechpool top`: the five signals of running pools in the terminal."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["register"]

_COLOURS: Final = {"ok": "green", "missed": "bold red"}
_COUNTS: Final = ("idle", "borrowed", "opening", "closing", "waiting", "opened", "borrows", "shed", "down")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("top")(top)


def top(
    url: Annotated[
        str, typer.Argument(help="A monitor, as `speechpool.monitoring.serve` says it.")
    ] = "http://127.0.0.1:9464/",
    *,
    every: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="Between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show the numbers once and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Tell each look as one line of JSON.")] = False,
) -> None:
    """Show the five signals, connections and slowest tasks of running pools, until Ctrl-C.

    Where the output is no terminal, it is written once.
    """
    from speechpool.monitoring.remote import Remote

    remote = Remote(url)
    if as_json:
        _tell(remote, every, once=once)
    elif once or not sys.stdout.isatty():
        _print(remote.take())
    else:
        _show(remote, every)


def _tell(remote: Any, every: float, *, once: bool) -> None:
    while True:
        typer.echo(json.dumps({"pools": remote.take()}))
        if once:
            return
        time.sleep(every)


def _print(pools: list[dict[str, Any]]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    console.print(_screen(pools))


def _show(remote: Any, every: float) -> None:
    from rich.live import Live
    from rich.text import Text

    from speechpool.errors import ConnectFailed

    shown: RenderableType = _screen(remote.take())
    with Live(shown, screen=True, auto_refresh=False) as live:
        while True:
            live.update(shown, refresh=True)
            time.sleep(every)
            try:
                shown = _screen(remote.take())
            except ConnectFailed as error:
                shown = Text(f"{error} Trying again; Ctrl-C ends.", style="bold red")


def _screen(pools: list[dict[str, Any]]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    if not pools:
        return Text("No pool is there.")
    return Group(*(part for pool in pools for part in _pool(pool)))


def _pool(pool: dict[str, Any]) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    report, stats = pool["report"], pool["stats"]
    signals = Table(box=None, pad_edge=False, title=f"{pool['pool']} → {pool['endpoint']}", title_justify="left")
    for heading in ("signal", f"last {report['window_seconds']:.0f} s", "since the start", "target", "verdict"):
        signals.add_column(heading)
    for signal in report["window"].values():
        if isinstance(signal, dict) and "verdict" in signal:
            recent, whole = pool["values"][signal["name"]]
            verdict = Text(signal["verdict"], style=_COLOURS.get(signal["verdict"], ""))
            signals.add_row(signal["name"], recent, whole, signal["target"] or "-", verdict)
    counts = ", ".join(f"{stats[name]:,} {name}" for name in _COUNTS)
    waits = f"oldest wait {stats['oldest_wait']:.2f} s"
    slowest = Table(box=None, pad_edge=False, title="slowest tasks", title_justify="left")
    for heading in ("took", "outcome", "queue", "connect", "start", "synthesis", "rest", "request"):
        slowest.add_column(heading)
    for task in pool["slowest"][:5]:
        phases = (_seconds(task[phase]) for phase in ("queue", "connect", "start", "synthesis", "rest"))
        slowest.add_row(_seconds(task["seconds"]), task["outcome"], *phases, task["request_id"] or "-")
    return [signals, Text(f"\nof at most {stats['max_size']}: {counts}, {waits}"), _words(pool), slowest, Text()]


def _words(pool: dict[str, Any]) -> Text:
    from rich.text import Text

    return Text(f"{pool['explained']}\n")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"
