"""Run the tests of cancellation on every supported Python that this machine has.

Each version gets an environment of its own, `.venv-py/VERSION`, made once with plain venv and pip. It holds the core of
speechpool and what these tests import, and nothing of the service.
"""

# ruff: noqa: T201  # a program that talks to a person
import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

__all__ = ["VERSIONS", "NoEnvironment", "environment", "find", "run"]

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSIONS = tuple(re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"])))
"""What the package says it supports."""
NEEDED = ("hypothesis", "pytest", "pytest-timeout", "trustme")
CANCELLATION = (
    "tests/synthesis/test_gates.py", "tests/synthesis/test_gates_ties.py", "tests/synthesis/test_gates_shuffled.py",
    "tests/pool/test_cancellation.py", "tests/pool/test_traps_cancelling.py", "tests/limits/test_quota.py",
)  # fmt: skip
"""Every await of a task; the borrowers and the permits behind them."""
FLOORS = ("tests/limits", "tests/pool", "tests/protocol", "tests/transport", "tests/synthesis")
NEEDS_SERVICE = tuple(f"tests/synthesis/test_{name}.py" for name in ("limits_of_pools", "sambert_pool", "speech"))
"""Tests of these floors that import the service, which has large dependencies."""
PATIENCE = 900.0
"""Seconds for the tests of one version."""


class NoEnvironment(Exception):
    """An environment cannot be made here; there may be no network."""


def find(version):
    """Return an interpreter of a version such as "3.12", or None: on PATH first, then of pyenv."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    newest = sorted(versions.glob(f"{version}.*"), key=lambda home: [int(n) for n in re.findall(r"\d+", home.name)])
    candidates = [sys.executable, shutil.which(f"python{version}"), *(home / "bin/python" for home in reversed(newest))]
    return next((str(each) for each in candidates if each and _version(each) == version), None)


def _version(python):
    """Ask: a shim of pyenv is there for every version, and works for some."""
    try:
        script = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip()


def environment(version, python):
    """Return the interpreter of the environment of a version, which is made where it is missing or out of date.

    Raises:
        NoEnvironment: pip could not install something.
    """
    home = ROOT / ".venv-py" / version
    inside, ready = home / "bin/python", home / ".ready"
    wanted = [each for each in PROJECT["optional-dependencies"]["dev"] if re.split(r"[<>=~!]", each)[0] in NEEDED]
    state = "\n".join([*PROJECT["dependencies"], *wanted])
    if not ready.exists() or ready.read_text() != state:
        shutil.rmtree(home, ignore_errors=True)
        _install([python, "-m", "venv", str(home)])
        _install([str(inside), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-e", str(ROOT), *wanted])
        ready.write_text(state)  # last: what is interrupted is made anew
    return str(inside)


def _install(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoEnvironment(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")


def run(python, tests):
    """Run tests in an environment; return (whether all passed, what pytest printed)."""
    left_out = [f"--ignore={each}" for each in NEEDS_SERVICE]
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *left_out, *tests]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        return False, f"not done after {PATIENCE:g} s\n{(error.stdout or b'').decode()}"
    return done.returncode == 0, done.stdout + done.stderr


def why_not(version):
    """Say why a version cannot be tested here."""
    reason = f"Python {version} is not on this machine: neither python{version} on PATH nor {version}.* in pyenv"
    return reason + (" (another one cannot be had from packages of Debian)." if os.environ.get("CI") else ".")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "versions", nargs="*", metavar="VERSION", help=f"which; all of {', '.join(VERSIONS)} by default"
    )
    parser.add_argument("--all", action="store_true", help=f"run all fast tests of {', '.join(FLOORS)}")
    parser.add_argument("--require", action="store_true", help="a version that is not here is a failure")
    options = parser.parse_args()
    bad = 0
    for version in options.versions or VERSIONS:
        python = find(version)
        if python is None:
            print(f"{version}: skipped. {why_not(version)}")
            bad += options.require
            continue
        passed, output = run(environment(version, python), FLOORS if options.all else CANCELLATION)
        print(output if not passed else f"{version}: {output.strip().splitlines()[-1]}  ({python})", flush=True)
        bad += not passed
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
