"""The official SDK in each version that has to work, in a virtual environment of its own: `.venv-sdk/VERSION`.

An environment is made once, with plain venv and pip, and kept. `python tests/conformance/sdk_environments.py` makes all.
"""

import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["NEWEST", "VERSIONS", "NoEnvironment", "interpreter"]

NEWEST = "2.0.2"
VERSIONS = ("1.25.2", "1.27.8", NEWEST)
"""The first with a pool, the last 1.x, and the newest."""

_HOME = Path(__file__).parents[2] / ".venv-sdk"


class NoEnvironment(Exception):
    """An environment cannot be made here; there may be no network."""


def interpreter(version):
    """Return the path of a Python that has the SDK in `version`.

    Raises:
        NoEnvironment: pip could not install it.
    """
    home = _HOME / version
    python, ready = home / "bin" / "python", home / ".ready"
    if not ready.exists():
        shutil.rmtree(home, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(home)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"dashscope=={version}"])
        ready.touch()  # last: what is interrupted is made anew
    return python


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoEnvironment(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")


if __name__ == "__main__":
    for each in VERSIONS:
        print(interpreter(each))  # noqa: T201  # what a person or a make target wants to see
