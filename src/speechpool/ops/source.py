"""A look at a program's source, without running it: keys in it, pools that nobody closes, failed objects given back.

Only what the syntax tree shows for certain counts. A pool that is handed on to other code is said to be so, and not
followed: whoever judges the program must then look, and the checklist says "not checked".
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from speechpool.errors import SettingsError

__all__ = ["DROP_IN", "OFFICIAL", "POOLS", "Place", "Pool", "Source", "read"]

OURS: Final = ("AsyncSpeechPool", "SpeechPool")
OBJECT_POOL: Final = "SpeechSynthesizerObjectPool"
POOLS: Final = (*OURS, OBJECT_POOL)
OFFICIAL: Final = "the official SDK's object pool"
DROP_IN: Final = "the object pool of speechpool.dashscope"
_DEFAULT_SIZE: Final = 20
_SKIPPED: Final = frozenset({"venv", "env", "node_modules", "site-packages", "__pycache__", "build", "dist"})
_LARGEST: Final = 1_000_000
"""Bytes of the largest file that is read."""
_TEXTS: Final = frozenset(
    {".toml", ".yaml", ".yml", ".json", ".ini", ".cfg", ".conf", ".sh", ".ipynb", ".properties", ".java", ".js", ".ts"}
)
_NAMED_TEXTS: Final = ("Dockerfile", "Makefile", "docker-compose")
_KEY: Final = re.compile(r"(?<![A-Za-z0-9])sk-(?=[A-Za-z0-9]*\d)[A-Za-z0-9]{16,}")
"""The form of the provider's keys."""
_NO_KEYS: Final = frozenset({"", "local", "any", "none", "empty", "test", "dummy"})
"""What a service without a key is given."""
_PLACEHOLDERS: Final = ("your", "<", "...", "xxx")
_CLOSING: Final = frozenset({"close", "shutdown", "aclose", "__exit__", "__aexit__"})
_KEEPING: Final = frozenset({"enter_context", "enter_async_context", "closing", "aclosing", "push", "push_async_exit"})
"""Calls that see to the end of what they are given."""
_SERVERS: Final = frozenset(
    {"fastapi", "starlette", "uvicorn", "hypercorn", "gunicorn", "litestar", "quart", "aiohttp"}
)
"""What turns SIGTERM into an orderly end by itself."""
_RETRIES: Final = frozenset({"tenacity", "backoff", "stamina", "retrying"})
_WORTH_PARSING: Final = re.compile(
    r"(?i:api_key)|SpeechPool|ObjectPool|PoolSettings|_synthesizer|SIGTERM|speechpool|sk-|"
    rf"\.(?:{'|'.join(_CLOSING)})\(|\b(?:{'|'.join(_SERVERS | _RETRIES)})\b"
)
"""What a file must hold to be of interest: a tree costs fifty times the search."""


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


def read(folder: Path) -> Source:
    """Look at everything below `folder`, hidden folders and environments left out.

    Raises:
        SettingsError: There is no such folder, it cannot be read, or no file is in it.
    """
    if not folder.is_dir():
        raise SettingsError(f"--source {folder} is no folder; name the one with the program in it.")
    source = Source(str(folder))
    modules = []
    for path in _files(folder):
        name = str(path.relative_to(folder))
        try:
            text = path.read_text("utf-8", errors="replace")
        except OSError:
            source.unread.append(name)
            continue
        if path.suffix != ".py":
            source.texts += 1
            found = source.env_keys if path.name.startswith(".env") else source.keys
            found += [Place(name, number) for number, line in enumerate(text.splitlines(), 1) if _KEY.search(line)]
            continue
        source.programs += 1
        if not _WORTH_PARSING.search(text):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # those of the program are its own
                tree = ast.parse(text)
            modules.append(_Module(name, tree))
        except (SyntaxError, ValueError, RecursionError):
            source.unread.append(name)
    if not source.programs:
        raise SettingsError(f"--source {folder} holds no Python file; name the folder with the program in it.")
    source.patched = any(module.patches for module in modules)
    for module in modules:
        module.look(source)
    closed = {name for module in modules for name in module.closed}
    for module in modules:
        for pool, name in module.open:
            # Closed by that name in another file: it may be this one, or its namesake.
            pool.end = "handed on" if name in closed else "open"
    return source


def _files(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except PermissionError as error:
        raise SettingsError(f"--source: {folder} cannot be read: {error.strerror}.") from error
    for path in entries:
        hidden = path.name.startswith(".")
        if path.is_dir() and not path.is_symlink():
            if not hidden and path.name not in _SKIPPED:
                yield from _files(path)
        elif path.is_file() and path.stat().st_size <= _LARGEST:
            known = path.suffix == ".py" or path.suffix in _TEXTS or path.name.startswith(_NAMED_TEXTS)
            if path.name.startswith(".env") or (known and not hidden):
                yield path


_KINDS: Final = (ast.stmt, ast.expr, ast.withitem, ast.excepthandler, ast.keyword, ast.comprehension, ast.match_case)
"""Everything but contexts and operators, which are shared between places."""


class _Module:
    """One file: what it makes, what it closes, and what it does in `except` and `finally`."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name = name
        self.open: list[tuple[Pool, str]] = []
        self._parents: dict[ast.AST, ast.AST] = {}
        self._nodes: list[ast.AST] = [tree]
        for node in self._nodes:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, _KINDS):
                    self._parents[child] = node
                    self._nodes.append(child)
        self._aliases = dict(self._imported())
        self.drop_in = self.patches = False
        self._find_drop_in()
        self.closed = set(self._closings())
        self._borrowed = set(self._find_borrowed())

    def look(self, source: Source) -> None:
        """Add what is in it."""
        for node in self._nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _KEY.search(node.value):
                source.keys.append(self._place(node))
            elif isinstance(node, ast.Call):
                self._call(node, source)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                self._assigned(node, source)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                self._import(node, source)
            elif isinstance(node, ast.Attribute) and node.attr == "SIGTERM":
                source.term = f"{self._place(node)} handles SIGTERM"

    def _call(self, call: ast.Call, source: Source) -> None:
        name = self._name(call.func)
        if name in POOLS:
            pool = Pool(
                self._place(call), name, self._size(call, name), self._retries(call, name), drop_in=self.drop_in
            )
            source.pools.append(pool)
            self._end(call, pool)
        elif name == "load" and isinstance(call.func, ast.Attribute) and self._name(call.func.value) == "PoolSettings":
            source.loads.append(self._place(call))
        elif name == "PoolSettings" and self._whole(_argument(call, "retry"), call, 2) == 0:
            source.no_retry.append(self._place(call))
        elif name == "borrow_synthesizer" and not (self.drop_in or source.patched):
            source.borrows.append(self._place(call))
        elif name == "return_synthesizer" and self._after_failure(call, also_finally=True):
            if not (self.drop_in or source.patched):
                source.given_back.append(self._place(call))
        elif name in _CLOSING and self._closes_borrowed(call) and self._after_failure(call, also_finally=False):
            source.disposed.append(self._place(call))
        for keyword in call.keywords:
            if keyword.arg == "api_key" and _is_key(keyword.value):
                self._add_key(keyword.value, source)

    def _assigned(self, node: ast.Assign | ast.AnnAssign, source: Source) -> None:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            named = self._name(target)
            if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                named = str(target.slice.value)
            if named in {"api_key", "DASHSCOPE_API_KEY", "API_KEY"} and node.value is not None and _is_key(node.value):
                self._add_key(node.value, source)

    def _add_key(self, node: ast.expr, source: Source) -> None:
        if (place := self._place(node)) not in source.keys:
            source.keys.append(place)

    def _import(self, node: ast.Import | ast.ImportFrom, source: Source) -> None:
        base = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        for each in node.names:
            path = f"{base}.{each.name}" if base else each.name
            root = path.partition(".")[0]
            if root in _SERVERS:
                source.term = source.term or f"{root} ({self._place(node)}) handles SIGTERM"
            if root in _RETRIES:
                source.retrying = root

    # ---------------------------------------------------------------------------------- pools
    def _size(self, call: ast.Call, kind: str) -> int | None:
        given = _argument(call, "max_size")
        if given is None and kind == OBJECT_POOL and call.args:
            given = call.args[0]
        return self._whole(given, call, _DEFAULT_SIZE)

    def _retries(self, call: ast.Call, kind: str) -> int | None:
        return None if kind == OBJECT_POOL else self._whole(_argument(call, "retry"), call, 2)

    def _whole(self, given: ast.expr | None, call: ast.Call, default: int) -> int | None:
        if given is None:
            # What `settings=` or `**more` hold is decided elsewhere.
            elsewhere = any(keyword.arg in {None, "settings"} for keyword in call.keywords)
            return None if elsewhere else default
        is_number = isinstance(given, ast.Constant) and isinstance(given.value, int)
        return given.value if is_number else None  # type: ignore[attr-defined]  # it is a Constant

    def _end(self, call: ast.Call, pool: Pool) -> None:
        parent = self._parents[call]
        while isinstance(parent, (ast.Await, ast.NamedExpr)):
            parent = self._parents[parent]
        kept = isinstance(parent, ast.Call) and self._name(parent.func) in _KEEPING
        if kept or isinstance(parent, ast.withitem):
            pool.end = "closed"
        elif isinstance(parent, (ast.Assign, ast.AnnAssign)):
            target = parent.targets[0] if isinstance(parent, ast.Assign) else parent.target
            name = self._name(target)
            if name in self.closed:
                pool.end = "closed"
            elif name:
                self.open.append((pool, name))
            else:
                pool.end = "handed on"
        elif not isinstance(parent, ast.Expr):
            pool.end = "handed on"

    def _closings(self) -> Iterator[str]:
        """Yield the names of everything that is closed here."""
        for node in self._nodes:
            if isinstance(node, ast.withitem):
                yield self._name(node.context_expr)
            elif isinstance(node, ast.Call):
                if isinstance(node.func, ast.Attribute) and node.func.attr in _CLOSING:
                    yield self._name(node.func.value)
                elif self._name(node.func) in _KEEPING:
                    yield from (self._name(each) for each in node.args)

    def _closes_borrowed(self, call: ast.Call) -> bool:
        return isinstance(call.func, ast.Attribute) and self._name(call.func.value) in self._borrowed

    def _find_borrowed(self) -> Iterator[str]:
        """Yield the names of synthesizers that are borrowed."""
        for node in self._nodes:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Call)
                and self._name(node.value.func) == "borrow_synthesizer"
            ):
                yield from map(self._name, node.targets)

    # ---------------------------------------------------------------------------------- small things
    def _after_failure(self, node: ast.AST, *, also_finally: bool) -> bool:
        """Whether this runs where something has failed."""
        while (parent := self._parents.get(node)) is not None:
            if isinstance(parent, ast.ExceptHandler):
                return True
            if also_finally and isinstance(parent, ast.Try) and node in parent.finalbody:
                return True
            if isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                return False
            node = parent
        return False

    def _find_drop_in(self) -> None:
        for node in self._nodes:
            if isinstance(node, ast.ImportFrom):
                paths = [f"{node.module}.{each.name}" for each in node.names]
            elif isinstance(node, ast.Import):
                paths = [each.name for each in node.names]
            else:
                continue
            self.drop_in = self.drop_in or any(path.startswith("speechpool.dashscope") for path in paths)
        called = {self._name(node.func) for node in self._nodes if isinstance(node, ast.Call)}
        self.patches = self.drop_in and "patch" in called

    def _imported(self) -> Iterator[tuple[str, str]]:
        for node in self._nodes:
            if isinstance(node, ast.ImportFrom):
                for each in node.names:
                    if each.asname:
                        yield each.asname, each.name

    def _name(self, node: ast.AST) -> str:
        """Return the last part of a name; empty for anything else."""
        if isinstance(node, ast.Attribute):
            return node.attr
        return self._aliases.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    def _place(self, node: ast.AST) -> Place:
        return Place(self.name, getattr(node, "lineno", 0))


def _argument(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _is_key(node: ast.expr) -> bool:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    text = node.value.lower()
    return text not in _NO_KEYS and not any(part in text for part in _PLACEHOLDERS)
