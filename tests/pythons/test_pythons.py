"""The tests of cancellation, on every supported Python that is here; one that is not is skipped, and says so."""

import os

import pytest

from pythons import CANCELLATION, VERSIONS, NoEnvironment, environment, find, run, why_not


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_cancelled_task_ends_cancelled_on(version):
    python = find(version)
    if python is None:
        pytest.skip(why_not(version))
    try:
        inside = environment(version, python)
    except NoEnvironment as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    passed, output = run(inside, CANCELLATION)
    assert passed, output[-5000:]


def test_this_python_is_supported_and_found():
    assert any(find(version) for version in VERSIONS)
    assert VERSIONS[0] == "3.11"
    assert find("3.0") is None
