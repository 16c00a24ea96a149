"""The patches fit the sources and break every promise; that each of them turns a test red takes minutes."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mutation import PROMISES, Misfit, read, read_all

from run import judge, pytest_in

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def test_every_patch_fits_and_changes_the_package():
    for mutation in read_all(HERE):
        changed = mutation.changed(ROOT)
        assert all(path.is_relative_to(ROOT / "src/speechpool") for path in changed), mutation.name


def test_every_promise_is_broken_by_a_patch_and_every_named_test_exists():
    mutations = read_all(HERE)
    assert len(mutations) >= 25
    assert {promise for one in mutations for promise in one.promises} == set(PROMISES)
    for mutation in mutations:
        for test in mutation.tests:
            path, *names = test.split("::")
            source = (ROOT / path).read_text() if (ROOT / path).is_file() else ""
            found = [re.search(rf"\b(def|class) {re.escape(name.partition('[')[0])}\b", source) for name in names]
            assert bool(source) is all(found) is True, (
                f"{mutation.name}: there is no {test}; correct its `# tests:` line"
            )


SOURCE = "def twice(n):\n    m = n\n    return 2 * m\n\n\ndef thrice(n):\n    m = n\n    return 3 * m\n"
PATCH = """\
# promise: pool 1
# breaks: Twice is four times.
# tests: tests/test_numbers.py
--- a/src/numbers.py
+++ b/src/numbers.py
@@ -2,2 +2,2 @@
     m = n
-    return 2 * m
+    return 4 * m
"""


@pytest.fixture
def applied(tmp_path):
    (tmp_path / "src").mkdir()

    def apply(patch, source=SOURCE):
        (tmp_path / "src/numbers.py").write_text(source)
        (tmp_path / "01_one.patch").write_text(patch)
        return read(tmp_path / "01_one.patch").changed(tmp_path)[tmp_path / "src/numbers.py"]

    return apply


def test_a_patch_follows_its_lines(applied):
    assert applied(PATCH) == SOURCE.replace("2 * m", "4 * m")
    assert applied(PATCH, "\n\n" + SOURCE) == "\n\n" + SOURCE.replace("2 * m", "4 * m")


@pytest.mark.parametrize(
    ("patch", "source"),
    [
        (PATCH, SOURCE.replace("2 * m", "m + m")),  # the line is gone
        (PATCH, "#\n" + SOURCE + SOURCE),  # it is there twice, and nowhere where the patch says
        (PATCH.replace("4 * m", "4 *"), SOURCE),  # the result is no Python
        (PATCH.replace("src/numbers.py", "src/letters.py"), SOURCE),
        (PATCH.replace("pool 1", "pool 14"), SOURCE),
        (PATCH.replace("# tests:", "# test:"), SOURCE),
        (PATCH.replace("@@ -2,2 +2,2 @@", ""), SOURCE),
        (PATCH.partition("---")[0], SOURCE),
    ],
)
def test_a_patch_that_does_not_fit_is_an_error_that_names_it(applied, patch, source):
    with pytest.raises(Misfit, match="01_one"):
        applied(patch, source)


@pytest.mark.parametrize(
    ("code", "output", "hang_counts", "verdict"),
    [
        (1, "noticed by tests/test_a.py::test_b\n1 failed", False, "killed"),
        (1, "Traceback: pytest itself crashed", False, "broken"),
        (0, "1 passed", False, "survived"),
        *((code, "noticed by tests/test_a.py", False, "broken") for code in (2, 3, 4, 5, -9)),
        (None, "noticed by nobody yet", False, "hung"),
        (None, "", True, "killed"),
    ],
)
def test_only_a_test_that_fails_kills_a_mutant(code, output, hang_counts, verdict):
    assert judge(code, output, hang_counts=hang_counts)[0] == verdict


@pytest.mark.parametrize(
    ("package", "test", "modules", "verdict"),
    [
        ({"__init__": ""}, "import speechpool", ["speechpool"], "survived"),
        ({"__init__": ""}, "import speechpool; assert False", ["speechpool"], "killed"),
        ({}, "import speechpool; assert False", ["speechpool"], "broken"),  # it would test what is installed
        ({"__init__": "", "pool": ""}, "import speechpool; assert False", ["speechpool.pool"], "broken"),
    ],
)
def test_the_copy_is_what_is_tested(tmp_path, package, test, modules, verdict):
    (tmp_path / "src/speechpool").mkdir(parents=True)
    for name, source in package.items():
        (tmp_path / f"src/speechpool/{name}.py").write_text(source)
    (tmp_path / "tests/mutants").mkdir(parents=True)
    shutil.copy(HERE / "imported_from.py", tmp_path / "tests/mutants")
    (tmp_path / "tests/test_one.py").write_text(f"def test_one():\n    {test}\n")
    assert judge(*pytest_in(tmp_path, ["tests/test_one.py"], modules, 60.0), hang_counts=False)[0] == verdict


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_mutant_is_killed():
    done = subprocess.run([sys.executable, HERE / "run.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
