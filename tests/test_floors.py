"""A floor imports only floors below it (the contract stands in pyproject.toml)."""

from importlinter.application.use_cases import lint_imports  # noqa: F401  # fails clearly where the tool is missing
from importlinter.cli import EXIT_STATUS_SUCCESS
from importlinter.cli import lint_imports as check


def test_the_floors_hold(monkeypatch, capsys):
    assert check(no_cache=True) == EXIT_STATUS_SUCCESS, capsys.readouterr().out
