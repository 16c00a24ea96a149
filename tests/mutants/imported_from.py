"""A plugin for pytest: the package under test must come from the copy that was changed, and a test must say that it failed.

An editable install or a stray PYTHONPATH would otherwise test the sources as they are, and every mutant would survive;
a module that no test imports would let it survive, too. And a pytest that crashes ends with 1, as a failing test does.
"""

# ruff: noqa: T201  # run.py reads it
import importlib.util
import os
import sys
from pathlib import Path

import pytest

_WRONG = 4
"""pytest's exit code for wrong usage: it counts neither as a failing nor as a passing test."""


def _inside(path):
    return Path(path).is_relative_to(os.environ["SPEECHPOOL_MUTANT_ROOT"])


def pytest_configure(config):
    spec = importlib.util.find_spec("speechpool")
    if spec is None or not _inside(spec.origin):
        pytest.exit(f"speechpool would be imported from {spec and spec.origin}, not from the copy.", returncode=_WRONG)


def pytest_runtest_logreport(report):
    if report.failed:
        print(f"\nnoticed by {report.nodeid}")


def pytest_sessionfinish(session):
    for name in os.environ["SPEECHPOOL_MUTANT_MODULES"].split():
        module = sys.modules.get(name)
        path = module and module.__file__
        print(f"\nimported {name} from {path}")
        if not path or not _inside(path):
            print(f"{name} is what the patch changes, but no test imported it from the copy.")
            session.exitstatus = _WRONG
