"""`docs/reliability.md` keeps its word: every number has its row, every named test exists, every numbered test is named."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
TABLES = {"t": [f"T{number:02}" for number in range(1, 84)], "d": [str(number) for number in range(1, 35)]}
"""The letter in the names of the tests, and the numbers of the rows: traps and defects."""
ROW = re.compile(r"\| (T\d\d|\d+) \| (.+) \| (.+) \| (.*) \|")
NUMBER = re.compile(r"def test_\w*?[td]\d\d_")
TEST = re.compile(r"`(tests/[\w/]+\.py::[\w:]+)`")
ANSWERS = ("guarded", "impossible, because ", "does not apply, because ")


@cache
def rows():
    """(number, what the column "here" says, the named tests) of each row of the page."""
    found = (ROW.fullmatch(line) for line in PAGE.read_text().splitlines())
    return [(match[1], match[3], TEST.findall(match[4])) for match in found if match]


@cache
def collected():
    """The tests of all files that matter: functions, methods, and the classes that hypothesis makes of its machines."""
    page, names = PAGE.read_text(), set()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        file, text = path.relative_to(ROOT).as_posix(), path.read_text()
        if file in page or NUMBER.search(text):  # parsing all of them takes its time
            names.update(f"{file}::{name}" for name in names_in(ast.parse(text).body))
    return names


def names_in(body):
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from (f"{node.name}::{name}" for name in names_in(node.body))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield from (name for name in [node.targets[0].id] if name.startswith("Test"))


def numbered(letter, number):
    part = f"_{letter}{int(number.lstrip('T')):02}_"
    return {name for name in collected() if part in name.rpartition("::")[2]}


def test_every_number_has_exactly_one_row():
    numbers = [number for number, _, _ in rows()]
    assert numbers == TABLES["t"] + TABLES["d"]


def test_every_named_test_exists():
    missing = {number: sorted(set(tests) - collected()) for number, _, tests in rows() if set(tests) - collected()}
    assert not missing, f"docs/reliability.md names tests that do not exist: {missing}"


@pytest.mark.parametrize("letter", TABLES)
def test_every_test_with_a_number_is_in_its_row(letter):
    named = {number: set(tests) for number, _, tests in rows()}
    missing = {number: sorted(numbered(letter, number) - named[number]) for number in TABLES[letter]}
    missing = {number: tests for number, tests in missing.items() if tests}
    assert not missing, f"docs/reliability.md does not name these tests: {missing}"


def test_every_row_says_how_and_names_a_test_or_says_why_not():
    for number, here, tests in rows():
        assert here.startswith(ANSWERS), (number, here)
        assert tests or not here.startswith("guarded"), f"{number} names no test"
        assert len(tests) == len(set(tests)), f"{number} names a test twice"
