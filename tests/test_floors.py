"""A floor imports only floors below it (the contract stands in pyproject.toml)."""

import subprocess
import sys
from pathlib import Path


def test_the_floors_hold():
    # A process of its own: the tool configures logging for the whole process it runs in.
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [tool, "--no-cache"], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout
