"""`speechpool monitor`: the live page of one or several monitors, in one place."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import typer

from speechpool.errors import ConnectFailed

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("monitor")(monitor)


def monitor(
    urls: Annotated[
        list[str],
        typer.Argument(
            metavar="URL...", help="Monitors, as `speechpool.monitoring.serve` says them: http://127.0.0.1:9464/"
        ),
    ],
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: any free one.")] = 9465,
    host: Annotated[str, typer.Option(help="Address of the page. Beyond this machine's own it needs --token.")] = (
        "127.0.0.1"
    ),
    token: Annotated[
        str | None, typer.Option(envvar="SPEECHPOOL_MONITOR_TOKEN", help="What visitors of the page must send.")
    ] = None,
) -> None:
    """Show the pools of other processes on one live page, until Ctrl-C.

    Each of those processes serves its own numbers: `with speechpool.monitoring.serve(pool): ...`
    """
    from speechpool.monitoring.remote import Remote
    from speechpool.monitoring.serving import listen, site

    remotes = [Remote(url) for url in urls]
    for remote in remotes:
        remote.take()  # a URL that is wrong from the beginning is an error; one that goes away later comes back, maybe
    app, feed = site(lambda: _together(remotes), token=token)
    with listen(app, feed, port, host, token=token) as page:
        typer.echo(f"The live page of {', '.join(remote.place for remote in remotes)}: {page.url}  (Ctrl-C ends it)")
        threading.Event().wait()


def _together(remotes: list[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for remote in remotes:
        try:
            pools = remote.take()
        except ConnectFailed:
            continue  # the page goes on with the others
        if len(remotes) > 1:
            pools = [pool | {"pool": f"{pool['pool']} @ {remote.place}"} for pool in pools]
        found += pools
    return found
