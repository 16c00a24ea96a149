"""One Python file as a syntax tree: what it makes and closes, and what it does where something has failed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from .source import OBJECT_POOL, OURS, Place, Pool, Source

__all__ = ["KEY", "WORTH_PARSING", "Module"]

KEY: Final = re.compile(r"(?<![A-Za-z0-9])sk-(?=[A-Za-z0-9]*\d)[A-Za-z0-9]{16,}")
"""The form of the provider's keys."""
_POOLS: Final = (*OURS, OBJECT_POOL)
_DEFAULT_SIZE: Final = 20
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
WORTH_PARSING: Final = re.compile(
    r"(?i:api_key)|SpeechPool|ObjectPool|PoolSettings|_synthesizer|SIGTERM|speechpool|sk-|"
    rf"\.(?:{'|'.join(_CLOSING)})\(|\b(?:{'|'.join(_SERVERS | _RETRIES)})\b"
)
"""What a file must hold to be of interest: a tree costs fifty times the search."""
_KINDS: Final = (ast.stmt, ast.expr, ast.withitem, ast.excepthandler, ast.keyword, ast.comprehension, ast.match_case)
"""Everything but contexts and operators, which are shared between places."""


class Module:
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
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and KEY.search(node.value):
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
        if name in _POOLS:
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
            borrows = isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
            if borrows and self._name(node.value.func) == "borrow_synthesizer":  # type: ignore[attr-defined]  # see above
                yield from map(self._name, node.targets)  # type: ignore[attr-defined]  # likewise

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
