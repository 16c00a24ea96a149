"""Break each promise on purpose and see that a test notices."""

from __future__ import annotations

# ruff: noqa: T201  # a program that talks to a person
import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from mutation import Misfit, Mutation, read_all

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WHAT_NOW = {
    "survived": "survived: no test notices, so one is missing.",
    "hung": "hung: a test should fail instead of waiting for ever (or `hang: counts` in the patch).",
    "broken": "is broken: pytest could not judge it, see above.",
}
NEEDED = ("pyproject.toml", "src", "tests")
BASELINE_LIMIT = 300.0
"""Seconds for all the tests together on the sources as they are."""
LOOK = 0.5
"""Seconds between two looks at a running pytest."""
NOTICED = "noticed by "
"""What `imported_from` prints before the name of a test that failed."""

TEACHING = """\
Each file *.patch beside this program is one plausible mistake, with the promise that it breaks and the tests that must
notice (mutation.py describes the form). The sources are copied to a temporary directory and stay untouched. All named
tests must pass there first; then each patch is applied alone and its tests run again. It is killed where pytest ends
with 1, a failing test: an error while collecting, or no test at all, does not count, and a hang only where the patch
says so. One that survives is a test that is missing; write it where the tests of that floor are.

  run.py                     all of them; exit code 0 only if every one is killed
  run.py --only waiter lifo  those whose names contain one of the words
  run.py --jobs 4 --json     quicker on more cores; results as JSON on standard output
"""


@dataclass(frozen=True)
class Result:
    """How one mutant fared. `verdict`: killed, survived, hung or broken (pytest could not judge)."""

    name: str
    promises: tuple[str, ...]
    breaks: str
    verdict: str
    killer: str
    seconds: float


def main() -> int:
    """Run the program; return its exit code."""
    options = arguments()
    try:
        mutations = chosen(read_all(HERE), options.only)
        for mutation in mutations:
            mutation.changed(ROOT)
    except Misfit as error:
        say(str(error))
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="speechpool-mutants-") as folder:
        template = Path(folder, "unchanged").resolve()
        copy(ROOT, template)
        tests = list(dict.fromkeys(test for mutation in mutations for test in mutation.tests))
        say(f"{len(mutations)} mutants; first {len(tests)} tests on the sources as they are")
        code, output = pytest_in(template, tests, (), BASELINE_LIMIT)
        if code != 0:
            say(f"{output}\nthe tests must pass before a mutant can fail them (pytest ended with {code}).")
            return 2
        results = list(run_all(mutations, template, options))
    report(results, options, time.monotonic() - began)
    return 0 if all(result.verdict == "killed" for result in results) else 1


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=TEACHING, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="mutants whose names contain a word")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="mutants at once (default: 2)")
    parser.add_argument(
        "--limit", type=float, default=60.0, metavar="S", help="seconds for one mutant (default: %(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="results as JSON on standard output")
    return parser.parse_args()


def chosen(mutations: list[Mutation], words: list[str]) -> list[Mutation]:
    """Return those that the command line asks for."""
    found = [one for one in mutations if not words or any(word in one.name for word in words)]
    if not found:
        raise Misfit(f"no patch in {HERE} has {' or '.join(words)} in its name.")
    return found


def copy(source: Path, target: Path) -> None:
    """Copy what the tests need. Compiled files come along: they are valid as long as time and size stay the same."""
    for name in NEEDED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


def run_all(mutations: list[Mutation], template: Path, options: argparse.Namespace) -> Iterator[Result]:
    """Run the mutants, some at once, and say how each of them fared as soon as it is known."""
    with ThreadPoolExecutor(max(1, options.jobs)) as workers:
        results: Iterable[Result] = workers.map(partial(run, template=template, limit=options.limit), mutations)
        for number, result in enumerate(results, 1):
            say(f"[{number}/{len(mutations)}] {result.verdict:8} {result.name} ({result.seconds:.1f} s)")
            if result.verdict == "broken":
                say(result.killer)
            yield result


def run(mutation: Mutation, template: Path, limit: float) -> Result:
    """Apply one patch to a copy of its own and run its tests."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=template.parent) as folder:
        root = Path(folder, "mutant")
        copy(template, root)
        for path, text in mutation.changed(root).items():
            path.write_text(text)
            # The compiled file of the original could pass for that of the mutant, had both been written in one second.
            for stale in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
                stale.unlink()
        code, output = pytest_in(root, mutation.tests, mutation.modules, limit)
    verdict, killer = judge(code, output, hang_counts=mutation.hang_counts)
    return Result(mutation.name, mutation.promises, mutation.breaks, verdict, killer, time.monotonic() - began)


def judge(code: int | None, output: str, *, hang_counts: bool) -> tuple[str, str]:
    """Return the verdict and who gave it: a test, the time limit or, where nobody could, what pytest said."""
    if code is None:
        return "killed" if hang_counts else "hung", "time limit"
    noticed = next((line for line in output.splitlines() if line.startswith(NOTICED)), None)
    if code == 1 and noticed is not None:
        return "killed", noticed.removeprefix(NOTICED)
    return ("survived", "") if code == 0 else ("broken", output)


def pytest_in(root: Path, tests: Iterable[str], modules: Iterable[str], limit: float) -> tuple[int | None, str]:
    """Run tests in a copy; return pytest's exit code, or None where the time was over, and what it said."""
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "--tb=short",
        "-p", "no:cacheprovider", "-p", "imported_from", "-p", "pytest_timeout",
        "--assert=plain",  # nobody reads why it failed, and a whole comparison of long audio takes minutes where CI is set
        "--timeout=0",  # its own limit would end pytest with 1, as a failing test does
        *tests,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # takes half of the time, and the tests need none of the others
        "PYTHONPATH": os.pathsep.join((str(root / "src"), str(root / "tests/mutants"))),
        "SPEECHPOOL_MUTANT_ROOT": str(root),
        "SPEECHPOOL_MUTANT_MODULES": " ".join(modules),
    }
    # A session of its own, so that what the tests have started ends with them.
    child = subprocess.Popen(
        command, cwd=root, env=environment, start_new_session=True, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    # Counted in looks, not by one clock: where the machine itself is paused for minutes, no test hangs.
    for _ in range(round(limit / LOOK)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            output, _ = child.communicate(timeout=LOOK)
            return child.returncode, output
    os.killpg(child.pid, signal.SIGKILL)
    return None, child.communicate()[0]


def report(results: list[Result], options: argparse.Namespace, seconds: float) -> None:
    """Print the table."""
    if options.json:
        print(json.dumps({"seconds": seconds, "mutants": [asdict(result) for result in results]}, indent=2))
        return
    width = max(len(result.name) for result in results)
    for result in results:
        print(f"{result.verdict:8}  {result.name:{width}}  {', '.join(result.promises):16}  {result.killer[:200]}")
    left = [result for result in results if result.verdict != "killed"]
    print(f"{len(results) - len(left)} of {len(results)} mutants killed in {seconds:.0f} s.")
    for result in left:
        print(f"{result.name} {WHAT_NOW[result.verdict]} {result.breaks}")


def say(text: str) -> None:
    """Show progress beside the results."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
