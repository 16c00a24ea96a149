"""One deliberate mistake: a patch file, read, checked against the sources and applied.

A patch is a unified diff below a few lines of its own:

    # promise: pool 3
    # breaks: A returned connection goes to the newest waiter.
    # tests: tests/pool/test_engine.py::test_t14_first_come_first_served_without_barging
    --- a/src/speechpool/pool/waiting.py
    +++ b/src/speechpool/pool/waiting.py
    @@ -118 +118 @@
    -                waiter = next(iter(lane))
    +                waiter = next(reversed(lane))

`promise` names what is broken, several by commas: `pool 1` to `pool 13`, `task 1` to `task 8`, `limits`, `protocol`,
`secrets`. `tests` are the quickest tests that must notice, one a line. `hang: counts` says that a test may also notice
by waiting for ever. Lines may move in the sources; the text of a hunk must be there exactly once, or at its line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

PROMISES = (
    *(f"pool {number}" for number in range(1, 14)),
    *(f"task {number}" for number in range(1, 9)),
    "limits",
    "protocol",
    "secrets",
)
"""What a patch may name: the promises of the pool and of a task by number, and the rest in a word."""
REMEDY = "Make the patch again for the present sources (`diff -U1` of the same mistake), or delete it with its promise."

_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@")


class Misfit(Exception):
    """A patch that cannot be used; the text names it and says what to do."""


@dataclass(frozen=True)
class Hunk:
    """Lines that stand in one file, and those that take their place."""

    path: str
    line: int
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """One patch."""

    name: str
    promises: tuple[str, ...]
    breaks: str
    tests: tuple[str, ...]
    hang_counts: bool
    hunks: tuple[Hunk, ...] = field(repr=False)

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules that it changes."""
        paths = dict.fromkeys(hunk.path for hunk in self.hunks)
        return tuple(path.removeprefix("src/").removesuffix(".py").replace("/", ".") for path in paths)

    def changed(self, root: Path) -> dict[Path, str]:
        """Return the changed files and their new text. Writes nothing.

        Raises:
            Misfit: A hunk is nowhere, at several places, or changes nothing that Python can read.
        """
        texts: dict[Path, str] = {}
        for hunk in self.hunks:
            path = root / hunk.path
            if path not in texts and not path.is_file():
                raise Misfit(f"{self.name}: there is no {hunk.path}. {REMEDY}")
            texts[path] = self._replaced(hunk, texts.get(path) or path.read_text())
        for path, text in texts.items():
            try:
                compile(text, str(path), "exec")
            except SyntaxError as error:
                raise Misfit(f"{self.name}: its result is no Python: {error}. {REMEDY}") from None
        return texts

    def _replaced(self, hunk: Hunk, text: str) -> str:
        text = "\n" + text  # so that a hunk matches whole lines only
        old = "\n" + hunk.old
        places = [match.start() for match in re.finditer(f"(?={re.escape(old)})", text)]
        if len(places) > 1:
            places = [place for place in places if text.count("\n", 0, place) + 1 == hunk.line]
        if len(places) != 1:
            where = f"{hunk.path}:{hunk.line}"
            raise Misfit(f"{self.name}: its lines are not at {where}, or not only there:\n{hunk.old}{REMEDY}")
        place = places[0]
        return (text[:place] + "\n" + hunk.new + text[place + len(old) :])[1:]


def read(path: Path) -> Mutation:
    """Read one patch.

    Raises:
        Misfit: Its head or its hunks are not as this module says.
    """
    head, separator, diff = path.read_text().partition("\n--- ")
    fields: dict[str, list[str]] = {}
    for line in head.splitlines():
        key, colon, value = line.removeprefix("# ").partition(": ")
        if not line.startswith("# ") or not colon:
            raise Misfit(f"{path.name}: {line!r} is no line such as `# promise: pool 3`.")
        fields.setdefault(key, []).append(value)
    wrong = fields.keys() - {"promise", "breaks", "tests", "hang"}
    missing = {"promise", "breaks", "tests"} - fields.keys()
    promises = tuple(" ".join(fields.get("promise", ())).split(", "))
    unknown = set(promises) - set(PROMISES)
    if wrong or missing or unknown or not separator:
        found = f"unknown: {sorted(wrong | unknown)}, missing: {sorted(missing)}, a diff: {bool(separator)}"
        raise Misfit(f"{path.name}: its head is wrong ({found}); mutation.py shows how it should look.")
    return Mutation(
        path.stem, promises, " ".join(fields["breaks"]), tuple(fields["tests"]), fields.get("hang") == ["counts"],
        tuple(_hunks(path.name, "--- " + diff)),
    )  # fmt: skip


def _hunks(name: str, diff: str) -> list[Hunk]:
    hunks: list[Hunk] = []
    path = ""
    start: int | None = None
    old: list[str] = []
    new: list[str] = []
    for line in [*diff.splitlines(), "--- end"]:
        if line.startswith(("--- ", "+++ ", "@@ ")):
            if start is not None:
                hunks.append(Hunk(path, start, "".join(old), "".join(new)))
            start, old, new = None, [], []
        if line.startswith("+++ b/"):
            path = line.removeprefix("+++ b/")
        elif match := _HUNK.match(line):
            start = int(match[1])
        elif start is not None and line[:1] in {" ", "-", "+", ""}:
            if line[:1] != "+":
                old.append(line[1:] + "\n")
            if line[:1] != "-":
                new.append(line[1:] + "\n")
    if not hunks or any(hunk.old == hunk.new or not hunk.old for hunk in hunks):
        raise Misfit(f"{name}: it has no hunk that replaces lines; a unified diff with `-U1` has.")
    return hunks


def read_all(folder: Path) -> list[Mutation]:
    """Return all patches of a folder, in order of their names.

    Raises:
        Misfit: One of them cannot be used.
    """
    return [read(path) for path in sorted(folder.glob("*.patch"))]
