"""The probes of the real service run only where they are asked for by name (`make test-cloud`): they cost money."""

from pathlib import Path

import pytest
from cloud_facts import FACTS, markdown


def pytest_ignore_collect(collection_path, config):
    named = any(
        Path(str(argument).partition("::")[0]).name == "test_cloud.py" for argument in config.invocation_params.args
    )
    return True if collection_path.name == "test_cloud.py" and not named else None


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    if FACTS:
        terminalreporter.write_sep("=", "what the service does")
        terminalreporter.write_line(markdown(FACTS))
