"""What a look at a program's source finds; `tree` looks.

Only what the syntax tree shows for certain counts. A pool that is handed on to other code is said to be so, and not
followed: whoever judges the program must then look, and the checklist says "not checked".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["DROP_IN", "OBJECT_POOL", "OFFICIAL", "OURS", "Place", "Pool", "Source"]

OURS: Final = ("AsyncSpeechPool", "SpeechPool")
OBJECT_POOL: Final = "SpeechSynthesizerObjectPool"
OFFICIAL: Final = "the official SDK's object pool"
DROP_IN: Final = "the object pool of speechpool.dashscope"


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(slots=True)
class Pool:
    """A pool that is made.

    Attributes:
        place: Where.
        kind: Its class.
        size: Its `max_size`, where that is written there, or the default; None: it is decided elsewhere.
        retries: Its `retry`, likewise; None: it is decided elsewhere.
        end: `closed`, `open` (nothing in the tree closes it), or `handed on`.
        drop_in: It has the official name, but is that of `speechpool.dashscope`.
    """

    place: Place
    kind: str
    size: int | None
    retries: int | None
    end: str = "open"
    drop_in: bool = False


@dataclass(slots=True)
class Source:
    """What was seen in a tree.

    Attributes:
        folder: Its name.
        programs: Python files that were read.
        texts: Other files that were searched for keys.
        unread: Files that could not be read, or not as Python.
        keys: Where keys are written.
        env_keys: Where they are written in a `.env` file.
        pools: Every pool that is made.
        patched: `speechpool.dashscope.patch()` is called, so that all of the official pools are ours.
        borrows: Where synthesizers are borrowed from an official object pool.
        given_back: Where one is returned although its task has failed: in `except` or `finally`.
        disposed: Where one is closed in `except`.
        term: What handles SIGTERM; None: nothing does.
        retrying: A library for retries that is used.
        loads: Where `PoolSettings.load()` is called.
        no_retry: Where `PoolSettings` turn retries off.
    """

    folder: str
    programs: int = 0
    texts: int = 0
    unread: list[str] = field(default_factory=list)
    keys: list[Place] = field(default_factory=list)
    env_keys: list[Place] = field(default_factory=list)
    pools: list[Pool] = field(default_factory=list)
    patched: bool = False
    borrows: list[Place] = field(default_factory=list)
    given_back: list[Place] = field(default_factory=list)
    disposed: list[Place] = field(default_factory=list)
    term: str | None = None
    retrying: str | None = None
    loads: list[Place] = field(default_factory=list)
    no_retry: list[Place] = field(default_factory=list)

    @property
    def ours(self) -> list[Pool]:
        """The pools of this library by its own names."""
        return [pool for pool in self.pools if pool.kind in OURS]

    @property
    def drop_ins(self) -> list[Pool]:
        """Those of this library by the official name."""
        return [pool for pool in self.pools if pool.kind == OBJECT_POOL and (pool.drop_in or self.patched)]

    @property
    def official(self) -> list[Pool]:
        """Those of the official SDK."""
        return [pool for pool in self.pools if pool.kind == OBJECT_POOL and not (pool.drop_in or self.patched)]
