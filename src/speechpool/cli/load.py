"""`speechpool load`: a load test for speech, up to twice the expected peak."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from speechpool.errors import SettingsError

from . import load_flags as flags
from .files import check_place, write
from .outcome import ExitCode, Terminated

if TYPE_CHECKING:
    from .load_run import Wish

__all__ = ["register"]

_EXAMPLES: Final = """\
Examples:

speechpool load --peak 50 --expect 'first_packet.p99<500ms' --expect 'error_rate<0.1%' --html report.html

speechpool load --rate 15 --target pool,fresh,sdk --fault latency@both:25ms --html report.html

speechpool load --sweep --max-size 50 --arrivals constant

speechpool load --url wss://tts.example.com/ --i-own-this-target --peak 20 --barge-in 0.2 --tokens-per-second 30
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("load", epilog=_EXAMPLES)(load)


def load(  # noqa: PLR0917  # flags
    url: flags.Url = None,
    api_key: flags.ApiKey = None,
    engine: flags.Engine = "replay",
    profile: flags.Profile = None,
    model: flags.Model = "cosyvoice-v3-flash",
    voice: flags.VoiceName = "longanyang",
    target: flags.Target = "pool",
    max_size: flags.MaxSize = None,
    workers: flags.Workers = 1,
    faults: flags.Faults = None,
    i_own_this_target: flags.Owned = False,
    peak: flags.Peak = 20,
    scale_time: flags.ScaleTime = 1.0,
    soak: flags.Soak = None,
    stages: flags.Stages = None,
    rate: flags.Rate = None,
    sweep: flags.Sweep = False,
    concurrency: flags.Concurrency = None,
    seconds: flags.Seconds = None,
    arrivals: flags.Arrivals = "poisson",
    texts: flags.Texts = None,
    tokens_per_second: flags.TokensPerSecond = None,
    barge_in: flags.BargeIn = 0.0,
    slow: flags.Slow = 0.0,
    seed: flags.Seed = 1,
    expect: flags.Expect = None,
    json_file: flags.JsonFile = None,
    jsonl: flags.Jsonl = None,
    csv: flags.Csv = None,
    html: flags.Html = None,
    show_schema: flags.Schema = False,  # noqa: ARG001  # its callback does all
) -> None:
    """Load a service with speech, up to twice the expected peak, and say how a listener would have fared.

    Tasks begin when they were planned to, whatever became of those before (open loop), and delays count from the
    planned moment. Warm-up does not count. A run in which the tester itself was in the way says so. Ctrl-C ends with a
    report of what there is.
    """
    from speechpool.load.expect import parse
    from speechpool.transport.descriptors import raise_soft_limit

    from .load_run import Run, Wish
    from .load_screen import told
    from .loop import run

    expectations = [parse(text) for text in expect or ()]
    wish = Wish(
        url=url, api_key=api_key, engine=engine, profile=profile, model=model, voice=voice,
        targets=tuple(target.replace(" ", "").split(",")), max_size=max_size, workers=workers,
        faults=tuple(faults or ()), peak=peak, scale_time=scale_time, soak=soak, stages=stages, rate=rate, sweep=sweep,
        concurrency=concurrency, seconds=seconds, arrivals=arrivals, texts=texts, tokens_per_second=tokens_per_second,
        barge_in=barge_in, slow=slow, seed=seed,
    )  # fmt: skip
    _check(wish, owned=i_own_this_target)
    for path in (json_file, jsonl, csv, html):
        if path is not None and str(path) != "-":
            check_place(path)
    raise_soft_limit()
    gc.freeze()  # what is loaded by now stays: looking through it again would only make tasks late
    one = Run(wish, expectations)
    ended: BaseException | None = None
    try:
        run(one.go())
    except (typer.Abort, Terminated) as signalled:
        if not one.result.records:
            raise
        ended = signalled
    report, records = one.report(), one.result.records
    _write(json_file, lambda: json.dumps(report, indent=1) + "\n")
    _write(jsonl, lambda: "".join(json.dumps(asdict(record)) + "\n" for record in records))
    if csv is not None:
        from speechpool.load.table import table

        _write(csv, lambda: table(records))
    if html is not None:
        from speechpool.load.page import written

        _write(html, lambda: written(report, records))
    if str(json_file) != "-":
        typer.echo(told(report))
    if ended is not None:
        raise ended
    if not all(verdict["holds"] for verdict in report["expectations"]):
        raise typer.Exit(ExitCode.EXPECTATION_FAILED)
    if "sweep" in report and report["sweep"]["rate"] is None:
        raise typer.Exit(ExitCode.EXPECTATION_FAILED)


def _check(wish: Wish, *, owned: bool) -> None:
    if wish.arrivals not in {"poisson", "constant"}:
        raise SettingsError(f"--arrivals {wish.arrivals!r} is unknown; choose poisson or constant.")
    if wish.host is not None and not owned:
        raise SettingsError(
            f"{wish.host} is another machine: a load test costs its owner money and patience. "
            "Add --i-own-this-target if it is yours."
        )
    given = {
        "--soak": wish.soak is not None, "--stages": wish.stages is not None, "--rate": wish.rate is not None,
        "--sweep": wish.sweep, "--concurrency": wish.concurrency is not None,
    }  # fmt: skip
    chosen = [name for name, is_given in given.items() if is_given]
    if len(chosen) > 1:
        raise SettingsError(f"{' and '.join(chosen)} exclude each other; choose one.")
    if wish.sweep and len(wish.targets) > 1:
        raise SettingsError("--sweep looks for the limit of one target; give one --target.")
    if wish.workers > (wish.max_size or wish.workers):
        raise SettingsError("--workers share the connections of --max-size; give at least one to each.")
    if len(set(wish.targets)) < len(wish.targets):
        raise SettingsError("--target names one of them twice; name each once.")
    if wish.faults and wish.url is not None and not wish.url.startswith("ws:"):
        raise SettingsError("--fault puts a TCP proxy before the service, which needs a ws:// URL: TLS ends elsewhere.")


def _write(path: Path | None, text: Callable[[], str]) -> None:
    if path is None:
        return
    if str(path) == "-":
        typer.echo(text(), nl=False)
        return
    write(path, text())
