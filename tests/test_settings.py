"""Settings are checked when they are made, and the documentation shows the same table."""

import re
from pathlib import Path

import pytest

from speechpool.errors import SettingsError
from speechpool.service import ServiceSettings
from speechpool.service.fault_kinds import FAULTS, PHASES
from speechpool.settings import Deadlines, PoolSettings, with_overrides

ROOT = Path(__file__).parents[1]


def test_the_defaults_are_those_of_the_design():
    settings = PoolSettings()
    assert (settings.max_size, settings.floor, settings.idle_limit, settings.waiting_limit) == (20, 20, 20, 200)
    assert (Deadlines().connect, Deadlines().total, Deadlines().cancel) == (10.0, 600.0, 2.0)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_size": 0}, "minimum of 1"),
        ({"max_size": 2.5}, "whole number"),
        ({"max_size": True}, "whole number"),
        ({"max_size": None}, "must not be None"),
        ({"borrow_timeout": -1}, "minimum of 0"),
        ({"borrow_timeout": float("nan")}, "a number"),
        ({"overflow": "block"}, "'wait', 'fail', 'grow'"),
        ({"max_size": 2, "min_size": 3}, "max_size"),
        ({"max_idle": 2, "min_size": 3}, "min_size"),
    ],
)
def test_a_wrong_value_is_named_with_its_limit(fields, named):
    with pytest.raises(SettingsError) as caught:
        PoolSettings(**fields)
    assert named in str(caught.value)


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(SettingsError, match="Did you mean 'max_size'"):
        with_overrides(PoolSettings(), {"maxsize": 3})
    assert with_overrides(PoolSettings(), {"max_size": 3}).max_size == 3


@pytest.mark.parametrize("kind", [PoolSettings, Deadlines, ServiceSettings])
def test_the_documentation_shows_every_setting_with_default_minimum_unit_and_reason(kind):
    rows, owner = {}, ""
    for line in (ROOT / "docs" / "settings.md").read_text().splitlines():
        if match := re.match(r"Fields of `(\w+)`", line):
            owner = match[1]
        if match := re.match(r"\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \| (.+) \|$", line):
            rows[owner, match[1]] = match.groups()[1:]
    for setting in kind.describe():
        default = "None" if setting.default is None else f"{setting.default!r}".strip("'")
        expected = (default, f"{setting.minimum:g}", setting.unit, setting.reason)
        assert rows.get((kind.__name__, setting.name)) == expected, setting.name


def test_the_documentation_shows_every_fault_and_every_phase():
    page = (ROOT / "docs" / "service.md").read_text()
    for kind in FAULTS:
        where = ", ".join(kind.phases) or "handshake"
        assert f"| `{kind.name}` | {kind.meaning} | {where} | {kind.value or '-'} | {kind.default or '-'} |" in page
    for phase, moment in PHASES.items():
        assert f"| {phase} | {moment} |" in page


def test_settings_beside_the_program_are_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert PoolSettings.load(environ={}) == PoolSettings()
    (tmp_path / "speechpool.toml").write_text('[pool]\nmax_size = 60\nheartbeat = "none"\n[endpoint]\nregion = "cn"\n')
    assert PoolSettings.load(environ={}) == PoolSettings(max_size=60, heartbeat=None)
    environ = {"SPEECHPOOL_POOL__MAX_SIZE": "70", "SPEECHPOOL_POOL__OVERFLOW": "grow", "SPEECHPOOL_POOL__RETRY": "1"}
    loaded = PoolSettings.load(environ=environ, retry=3)
    assert loaded == PoolSettings(max_size=70, heartbeat=None, overflow="grow", retry=3)
    (tmp_path / "other.toml").write_text("[pool]\nmax_size = 5\n")
    assert PoolSettings.load(environ={"SPEECHPOOL_CONFIG": "other.toml"}).max_size == 5
    assert PoolSettings.load("other.toml", environ={}).max_size == 5


def test_settings_that_cannot_be_loaded_say_why(tmp_path):
    file = tmp_path / "x.toml"
    with pytest.raises(SettingsError, match="cannot be read as settings"):
        PoolSettings.load(file, environ={})
    for text, words in (
        ("[pool", "cannot be read as settings"),
        ("pool = 3", "is no table"),
        ("[pool]\nmax_sise = 3", "Did you mean 'max_size'"),
        ('[pool]\nmax_size = "many"', "must be a whole number"),
    ):
        file.write_text(text)
        with pytest.raises(SettingsError, match=words):
            PoolSettings.load(file, environ={})
    with pytest.raises(SettingsError, match="must be a whole number"):
        PoolSettings.load(environ={"SPEECHPOOL_POOL__MAX_SIZE": "6.5"})
