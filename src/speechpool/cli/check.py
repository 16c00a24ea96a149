"""`speechpool check`: the production checklist, each item with its evidence."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from urllib.parse import urlsplit

import typer

from speechpool.errors import ConnectFailed, SettingsError

from .configuration import HIDDEN, Configuration, load
from .files import write
from .outcome import ExitCode

if TYPE_CHECKING:
    from speechpool.ops.checklist import Checklist, Item
    from speechpool.ops.evidence import Configured, Evidence, Key
    from speechpool.ops.probe import Probe

    from .endpoints import Wish

__all__ = ["register"]

_Seen = TypeVar("_Seen")
_KEY: Final = "DASHSCOPE_API_KEY"
_COLOURS: Final = {"pass": "green", "warn": "yellow", "fail": "red", "not checked": "bright_black"}
_NAMES: Final = "key, sizes, rate, failed, shutdown, region, monitoring, load, retries, alerts, idle, clock"
_SERVICE, _PLAN, _PROOF, _RESULT = "Endpoint", "What is expected", "Where the evidence is", "Result"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("check")(check)


def check(
    *,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="ws:// or wss:// URL to dial.", rich_help_panel=_SERVICE)
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="DashScope region in place of a URL: cn, intl, hk, ...", rich_help_panel=_SERVICE)
    ] = None,
    workspace: Annotated[
        str | None, typer.Option(help="Workspace id; some regions need one.", rich_help_panel=_SERVICE)
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help=f"Key; better: the environment variable {_KEY}.", rich_help_panel=_SERVICE),
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM file with the certificates to trust.", rich_help_panel=_SERVICE),
    ] = None,
    watch_idle: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Watch an idle connection so long: is it closed?", rich_help_panel=_SERVICE
        ),
    ] = 0.0,
    peak: Annotated[
        float | None, typer.Option(help="Tasks at once at the busiest time.", rich_help_panel=_PLAN)
    ] = None,
    task_seconds: Annotated[
        float | None,
        typer.Option(help="Mean seconds of a task; unset: those of the load report.", rich_help_panel=_PLAN),
    ] = None,
    submission_rate: Annotated[
        float | None, typer.Option(help="Task starts a second that the account may make.", rich_help_panel=_PLAN)
    ] = None,
    machines: Annotated[int, typer.Option(min=1, help="That share the peak.", rich_help_panel=_PLAN)] = 1,
    source: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The program's source; it is read, not run.", rich_help_panel=_PROOF),
    ] = None,
    load_report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON of the last `speechpool load`.", rich_help_panel=_PROOF),
    ] = None,
    max_age: Annotated[
        float, typer.Option(min=0, metavar="DAYS", help="An older load test proves nothing.", rich_help_panel=_PROOF)
    ] = 30.0,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="Metrics of the running program; repeatable, one a process.", rich_help_panel=_PROOF
        ),
    ] = None,
    dashboards: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder that Grafana loads dashboards from.", rich_help_panel=_PROOF),
    ] = None,
    grafana: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Grafana; its token: GRAFANA_TOKEN.", rich_help_panel=_PROOF),
    ] = None,
    prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Prometheus with the alerts.", rich_help_panel=_PROOF)
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"Judge this item only; repeatable. {_NAMES}.", rich_help_panel=_RESULT),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Leave with 99 unless every item passes.", rich_help_panel=_RESULT),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Tell everything as one line of JSON.", rich_help_panel=_RESULT)
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as a page, too.", rich_help_panel=_RESULT)
    ] = None,
) -> None:
    """Go through the production checklist, and say for each item what proves it, or what to do.

    An item is pass, warn, fail or "not checked"; without evidence it is never a pass. Leaves with 99 where one fails.
    The endpoint is dialled, but nothing is spoken. All flags may stand in speechpool.toml, section "check".
    """
    from speechpool.ops.evidence import Plan
    from speechpool.ops.judge import judged

    from .endpoints import Wish

    _check_names(only or [])
    configuration = load()
    wish = Wish(
        url=endpoint, region=region, workspace=workspace, api_key=api_key, tls_ca=tls_ca,
        configured=configuration.section("endpoint"),
    )  # fmt: skip
    plan = Plan(
        peak=_positive("--peak", peak), task_seconds=_positive("--task-seconds", task_seconds),
        submission_rate=_positive("--submission-rate", submission_rate), machines=machines, report_age=max_age,
    )  # fmt: skip
    evidence = _gathered(
        _configured(configuration, wish), plan, source=source, load_report=load_report, metrics=metrics or (),
        dashboards=dashboards, grafana=grafana, prometheus=prometheus, probe=lambda: _probed(wish, watch_idle),
    )  # fmt: skip
    checklist = judged(evidence).only(only or [])
    if html is not None:
        _write(html, checklist)
    typer.echo(json.dumps(checklist.to_dict()) if as_json else "\n".join(_told(checklist)))
    if not checklist.holds(strict=strict):
        raise typer.Exit(ExitCode.EXPECTATION_FAILED)


def _check_names(names: list[str]) -> None:
    from speechpool.ops.checklist import TITLES

    for name in names:
        if name not in TITLES:
            raise SettingsError(f"--only {name!r} is no item; items are: {', '.join(TITLES)}.")


def _positive(flag: str, value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise SettingsError(f"{flag} {value:g} must be above 0.")
    return value


# ------------------------------------------------------------------------------------ evidence
def _configured(configuration: Configuration, wish: Wish) -> Configured:
    from speechpool.limits import java
    from speechpool.ops.evidence import Configured
    from speechpool.settings import PoolSettings

    total, per_host = java.connection_limits()
    values = configuration.section("pool")
    origins = dict.fromkeys(found.origin for place, found in configuration.found.items() if place[0] == "pool")
    return Configured(
        key=_key(configuration, wish),
        pool=PoolSettings.of(values) if values else None,
        pool_origin=", ".join(origin.removeprefix("file:") for origin in origins),
        object_pools=java.object_pools(),
        total=total,
        per_host=per_host,
    )


def _key(configuration: Configuration, wish: Wish) -> Key | None:
    from speechpool.ops.evidence import Key

    if wish.api_key:
        return Key("--api-key, on the command line", safe=False)
    if found := configuration.found.get(("endpoint", HIDDEN)):
        return Key(found.origin.removeprefix("file:"), safe=found.origin.startswith("environment"))
    return Key(f"environment variable {_KEY}", safe=True) if os.environ.get(_KEY) else None


def _probed(wish: Wish, watch: float) -> Probe | str:
    """Dial the endpoint, or say why not."""
    from speechpool.ops.probe import LOOPBACK, probe
    from speechpool.synthesis import Endpoint

    from .certificates import client_context
    from .loop import run

    url = wish.address()
    key = wish.key() or os.environ.get(_KEY)
    if url is None:
        return "No endpoint is named, so none was dialled."
    if not key:
        if urlsplit(url).hostname not in LOOPBACK:
            return f"There is no key for {urlsplit(url).hostname}, so it was not dialled."
        key = "local"  # a local service without a key of its own takes any
    named = wish.tls_ca or wish.configured.get("tls_ca")
    tls = client_context(Path(named)) if named and url.startswith("wss:") else None
    return run(probe(Endpoint(url, api_key=key, workspace=wish.team(), ssl=tls), watch=watch))


def _gathered(configured: Configured, plan: Any, **where: Any) -> Evidence:
    from dataclasses import replace

    from speechpool.ops import report, tree, watching
    from speechpool.ops.evidence import Evidence

    # Files first: what is wrong with them needs no minute of watching.
    test = None if where["load_report"] is None else report.read(where["load_report"])
    program = None if where["source"] is None else tree.read(where["source"])
    boards = None if where["dashboards"] is None else watching.from_files(where["dashboards"])
    if plan.task_seconds is None and test is not None:
        plan = replace(plan, task_seconds=test.task_seconds)
    token = os.environ.get("GRAFANA_TOKEN")
    grafana = _seen(where["grafana"], lambda url: watching.from_grafana(url, token))
    probed = where["probe"]()
    return Evidence(
        configured=configured,
        plan=plan,
        probe=None if isinstance(probed, str) else probed,
        undialled=probed if isinstance(probed, str) else "",
        source=program,
        report=test,
        metrics=_seen(where["metrics"], watching.scraped),
        rules=_seen(where["prometheus"], watching.rules_of),
        dashboards=boards or grafana,
    )


def _seen(place: Any, look: Callable[[Any], _Seen]) -> _Seen | ConnectFailed | None:
    """Look at a place that was named. What does not answer is evidence, too."""
    try:
        return look(place) if place else None
    except ConnectFailed as error:
        return error


# ------------------------------------------------------------------------------------ the result
def _told(checklist: Checklist) -> Iterator[str]:
    from speechpool.ops.checklist import Verdict

    for item in checklist.items:
        verdict = item.verdict.value
        yield f"{typer.style(f'{verdict:<12}', fg=_COLOURS[verdict], bold=True)} {item.title} ({item.name})"
        yield from _evidence(item)
    yield ", ".join(f"{checklist.count(verdict)} {verdict.value}" for verdict in reversed(Verdict))


def _evidence(item: Item) -> Iterator[str]:
    """Everything that proves a pass; of any other item, only what speaks against it."""
    from speechpool.ops.checklist import Verdict

    for finding in item.findings:
        if item.verdict is Verdict.PASS or finding.verdict is not Verdict.PASS:
            yield f"{'':<13}{finding.evidence}"
        if finding.remedy:
            yield f"{'':<13}-> {finding.remedy}"


def _write(path: Path, checklist: Checklist) -> None:
    from speechpool.ops.page import written

    write(path, written(checklist, time.strftime("%Y-%m-%d %H:%M %Z")))
