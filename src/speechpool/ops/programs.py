"""What settings and source prove of a program: `key`, `failed`, `shutdown` and `retries` of the checklist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from .checklist import Finding
from .evidence import Evidence
from .source import DROP_IN, OFFICIAL, Place, Source

__all__ = ["failed", "key", "retries", "shutdown"]

_SHOWN: Final = 5
"""Places that are named; the others are counted."""
_NO_SOURCE: Final = "The source of the program was not looked at."
_ADD_SOURCE: Final = "add --source DIR"


def _places(places: Iterable[object]) -> str:
    every = [str(place) for place in places]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def _read(source: Source) -> Iterator[Finding]:
    if source.unread:
        yield Finding.unknown(
            f"{_places(source.unread)} cannot be read as Python, and may hold anything.",
            "correct it, or check with the Python that runs it",
        )


# ------------------------------------------------------------------------------------ key
def key(evidence: Evidence) -> Iterator[Finding]:
    """Judge where the key is kept."""
    found = evidence.configured.key
    into = "set the environment variable DASHSCOPE_API_KEY (from a secret store), and remove it there"
    probe = evidence.probe
    if found is None and probe is not None and probe.local:
        yield Finding.unknown(
            "A service of this machine is used, and no key is set.", "set DASHSCOPE_API_KEY as in production"
        )
    elif found is None:
        yield Finding.failed(
            "There is no key: DASHSCOPE_API_KEY is not set.", "set it where the program runs, and here"
        )
    elif found.safe:
        yield Finding.passed(f"The key comes from the {found.origin}.")
    else:
        yield Finding.failed(f"The key comes from {found.origin}, where others can read it.", into)
    source = evidence.source
    if source is None:
        yield Finding.unknown(f"{_NO_SOURCE} A key may stand in it.", _ADD_SOURCE)
        return
    if source.keys:
        yield Finding.failed(f"What looks like a key is written in {_places(source.keys)}.", f"revoke it, and {into}")
    if source.env_keys:
        yield Finding.warned(
            f"A key stands in {_places(source.env_keys)}.", "keep it out of version control and of images (.gitignore)"
        )
    if not source.keys and not source.env_keys:
        yield Finding.passed(
            f"None of {source.programs} Python and {source.texts} other files of {source.folder} holds a key."
        )
    yield from _read(source)


# ------------------------------------------------------------------------------------ failed objects
def failed(evidence: Evidence) -> Iterator[Finding]:
    """Judge what becomes of what has failed."""
    source = evidence.source
    if source is None:
        yield Finding.unknown(_NO_SOURCE, _ADD_SOURCE)
        return
    if not source.pools and not source.borrows:
        yield Finding.unknown(f"No pool is made in {source.folder}, as far as its source shows.", _ADD_SOURCE)
    if source.ours:
        yield Finding.passed(
            f"{_places(_where(source.ours))}: these pools close a connection whose task has failed by themselves."
        )
    if source.drop_ins:
        yield Finding.passed(f"{_places(_where(source.drop_ins))}: {DROP_IN} refuses what has failed or still runs.")
    if source.official or source.borrows:
        yield _official(source)
    yield from _read(source)


def _official(source: Source) -> Finding:
    use_ours = "import speechpool.dashscope in its place, which refuses it"
    if source.given_back:
        return Finding.failed(
            f"{_places(source.given_back)} returns to {OFFICIAL} in `except` or `finally`, so what has failed, too.",
            f"return it only after success, and close it in `except`; or {use_ours}",
        )
    if source.borrows and not source.disposed:
        return Finding.failed(
            f"{_places(source.borrows)} borrows from {OFFICIAL}, and nothing closes what has failed.",
            f"close it in `except`; or {use_ours}",
        )
    if not source.borrows:
        return Finding.unknown(
            f"{OFFICIAL} is made, but nothing borrows from it, as far as the source shows.", _ADD_SOURCE
        )
    return Finding.passed(f"{_places(source.disposed)} closes what has failed, and nothing returns it.")


def _where(pools: Iterable[object]) -> Iterator[Place]:
    return (pool.place for pool in pools)  # type: ignore[attr-defined]  # each is a Pool


# ------------------------------------------------------------------------------------ shutdown
def shutdown(evidence: Evidence) -> Iterator[Finding]:
    """Judge whether pools are closed, also when SIGTERM comes."""
    source = evidence.source
    if source is None:
        yield Finding.unknown(_NO_SOURCE, _ADD_SOURCE)
        return
    ends = {end: [pool.place for pool in source.pools if pool.end == end] for end in ("closed", "open", "handed on")}
    if not source.pools:
        yield Finding.unknown(f"No pool is made in {source.folder}, as far as its source shows.", _ADD_SOURCE)
    if ends["open"]:
        yield Finding.failed(
            f"{_places(ends['open'])} makes a pool that nothing closes.",
            "use `with` or `async with`, or call close(drain=5.0), shutdown() of an object pool; see docs/shutdown.md",
        )
    if ends["handed on"]:
        yield Finding.unknown(
            f"{_places(ends['handed on'])} hands a pool on to other code, which was not followed.",
            "see that it closes it, and make it in a `with` where that can be",
        )
    if ends["closed"]:
        yield Finding.passed(f"{_places(ends['closed'])}: the pool is closed.")
    if source.pools and source.term is None:
        yield Finding.warned(
            "Nothing handles SIGTERM, which containers send: Python then ends at once, and closes nothing.",
            "handle it as docs/shutdown.md shows",
        )
    elif source.pools:
        yield Finding.passed(f"{source.term}.")
    yield from _read(source)


# ------------------------------------------------------------------------------------ retries
def retries(evidence: Evidence) -> Iterator[Finding]:
    """Judge whether what fails for a moment is tried again, ever more slowly."""
    pool, source = evidence.configured.pool, evidence.source
    turn_on = "leave `retry` at its default of 2, or raise it"
    if pool is not None:
        told = f"retry = {pool.retry} ({evidence.configured.pool_origin})"
        if pool.retry == 0:
            yield Finding.failed(f"{told}: no task is tried again.", turn_on)
        elif pool.open_backoff >= pool.open_backoff_idle_cap:
            yield Finding.failed(
                f"{told}, but open_backoff = {pool.open_backoff:g} s is not below its cap: pauses do not grow.",
                "leave open_backoff at its default of 0.1 s",
            )
        else:
            yield Finding.passed(
                f"{told}; dials are tried again after {pool.open_backoff:g} s, doubling to "
                f"{pool.open_backoff_idle_cap:g} s, with full jitter."
            )
    if source is not None:
        yield from _written(source, turn_on, known=pool is not None)
    elif pool is None:
        yield Finding.unknown(
            "Neither settings of a pool nor its source were seen.", f"{_ADD_SOURCE}, or set [pool] in speechpool.toml"
        )


def _written(source: Source, turn_on: str, *, known: bool) -> Iterator[Finding]:
    off = [*(pool.place for pool in source.ours if pool.retries == 0), *source.no_retry]
    on = [pool.place for pool in source.ours if pool.retries]
    if off:
        yield Finding.failed(f"{_places(off)} turns retries off (retry=0).", turn_on)
    if on:
        yield Finding.passed(
            f"{_places(on)}: tasks are tried again before their first audio, with backoff and a budget."
        )
    elsewhere = [pool.place for pool in source.ours if pool.retries is None]
    if elsewhere and not known:
        yield Finding.unknown(
            f"{_places(elsewhere)} takes its settings from elsewhere.", "set [pool] in speechpool.toml, and load it"
        )
    if source.drop_ins:
        yield Finding.passed(f"{_places(_where(source.drop_ins))}: {DROP_IN} tries again, with backoff.")
    if source.official and source.retrying:
        yield Finding.unknown(
            f"{OFFICIAL} tries nothing again; {source.retrying} is used, but whether for it the source does not show.",
            "see that it backs off exponentially, and wraps the whole task",
        )
    elif source.official:
        yield Finding.failed(
            f"{_places(_where(source.official))} uses {OFFICIAL}, which tries nothing again.",
            "use speechpool, or import speechpool.dashscope in its place",
        )
    if not source.pools and not known:
        yield Finding.unknown(f"No pool is made in {source.folder}, as far as its source shows.", _ADD_SOURCE)
    yield from _read(source)
