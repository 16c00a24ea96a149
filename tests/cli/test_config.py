"""`speechpool config`: every value with its origin, every mistake at once; and the region by name."""

import functools
import inspect
import json

import pytest
from commands import Serving, error_line, run_here

from speechpool.cli.check import check as check_verb
from speechpool.cli.configuration import read
from speechpool.cli.endpoints import Wish, url_of
from speechpool.cli.sections import settings
from speechpool.cli.service import service as verb
from speechpool.errors import SettingsError
from speechpool.settings import PoolSettings

KEY = "sk-canary"
GOOD = f'[service]\nport = 9000\napi_key = "{KEY}"\n[endpoint]\nurl = "wss://user:{KEY}@example.com"\n'


@pytest.fixture
def config(monkeypatch, capsys, tmp_path):
    return functools.partial(run_here, monkeypatch, capsys, tmp_path, "config")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "speechpool.toml"


def shown(done):
    assert (done.returncode, done.stderr) == (0, "")
    assert KEY not in done.stdout
    return {f"{row['section']}.{row['name']}": (row["value"], row["origin"]) for row in json.loads(done.stdout)}


def mistakes(done):
    """Every error, by the name that is wrong."""
    assert (done.returncode, done.stderr) == (2, "")
    assert KEY not in done.stdout
    told = {}
    for problem in json.loads(done.stdout)["errors"]:
        assert problem["name"] not in told, problem
        told[problem["name"]] = problem["message"]
    return told


# ------------------------------------------------------------------------------------ show
def test_every_setting_has_a_value_and_an_origin(config, file):
    file.write_text(GOOD)
    rows = shown(config("show", "--json", SPEECHPOOL_SERVICE__PORT="9001", DASHSCOPE_API_KEY=KEY))
    assert set(rows) == {f"{section}.{name}" for section, name in settings()}
    assert rows["service.port"] == (9001, "environment variable SPEECHPOOL_SERVICE__PORT")
    assert rows["service.api_key"] == ("set", "file:speechpool.toml")
    assert rows["service.text_gap"] == (23.0, "default")
    assert rows["service.profile"] == (None, "default")
    assert rows["endpoint.url"] == ("wss://***@example.com", "file:speechpool.toml")
    assert rows["endpoint.api_key"] == ("set", "environment variable DASHSCOPE_API_KEY")


def test_the_settings_of_the_service_are_its_flags():
    # `monitor` is of one run: the services that say and demo start for themselves would want the same port.
    flags = set(inspect.signature(verb).parameters) - {"voices", "as_json", "monitor"}
    assert {name for section, name in settings() if section == "service"} == flags


def test_people_get_a_table(config, file):
    file.write_text(GOOD)
    done = config("show", "--origin")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["[service]"] in lines
    assert ["port", "9000", "file:speechpool.toml"] in lines
    assert ["api_key", "set", "file:speechpool.toml"] in lines
    assert ["engine", "auto", "default"] in lines
    assert ["tls_ca", "unset", "default"] in lines
    assert KEY not in done.stdout
    assert ["port", "9000"] in [line.split() for line in config("show").stdout.splitlines()]


def test_another_file_may_be_named(config, tmp_path):
    (tmp_path / "other.toml").write_text("[service]\nport = 1\n")
    rows = shown(config("show", "--json", SPEECHPOOL_CONFIG="other.toml"))
    assert rows["service.port"] == (1, "file:other.toml")
    assert "nowhere.toml" in error_line(config("show", SPEECHPOOL_CONFIG="nowhere.toml"), 2)


def test_what_is_wrong_cannot_be_shown(config, file):
    file.write_text("[service]\nprot = 1\nport = 70000\n")
    line = error_line(config("show"), 2)
    assert "service.prot" in line
    assert "1 more; see: speechpool config check" in line


# ------------------------------------------------------------------------------------ check
def test_all_mistakes_are_told_at_once(config, file):
    file.write_text(f"""
port = 3
[service]
prot = 1
port = 70000
workers = 0
text_gap = 0
idle_timeout = "soon"
early_text = 3
fault = ["dorp", "drop"]
engine = "hibary"
host = "0.0.0.0"
allow_origin = ["example.com"]
tls_cert = "x.pem"
[endpoint]
apikey = "{KEY}"
api_key = 3
region = "intel"
tls_ca = "nowhere.pem"
[servise]
a = 1
""")
    told = mistakes(
        config(
            "check",
            "--json",
            SPEECHPOOL_SERVCE__PORT="3",
            SPEECHPOOL_CONFG="x",
            SPEECHPOOL_OTHER="x",
            SPEECHPOOL_SERVICE__DRAIN="x",
            DASHSCOPE_CONNECTION_POOL_SIZE="many",
        )
    )
    expected = {
        "port": ["outside of a section", "[service]"],
        "servise": ["did you mean service?"],
        "service.prot": ["no setting", "did you mean port?"],
        "service.port": ["70000", "at most 65,535", "speechpool.toml"],
        "service.workers": ["at least 1"],
        "service.text_gap": ["above 0 or 'none'"],
        "service.idle_timeout": ["'soon'", "a number or 'none'"],
        "service.early_text": ["true or false"],
        "service.fault": ["dorp", "Did you mean 'drop'?"],
        "service.engine": ["hibary", "hibari"],
        "service.host": ["0.0.0.0", "SPEECHPOOL_SERVICE__API_KEY"],
        "service.allow_origin": ["example.com"],
        "service.tls_cert": ["belong together"],
        "service.drain": ["a number", "SPEECHPOOL_SERVICE__DRAIN"],
        "endpoint.apikey": ["did you mean api_key?"],
        "endpoint.api_key": ["a text in quotes"],
        "endpoint.region": ["intel", "intl", "ap-southeast-1"],
        "endpoint.tls_ca": ["nowhere.pem"],
        "SPEECHPOOL_SERVCE__PORT": ["did you mean SPEECHPOOL_SERVICE__PORT?"],
        "SPEECHPOOL_CONFG": ["did you mean SPEECHPOOL_CONFIG?"],
        "SPEECHPOOL_OTHER": ["nothing reads it"],
        "environment": ["DASHSCOPE_CONNECTION_POOL_SIZE", "many"],
    }
    assert set(told) == set(expected)
    for name, parts in expected.items():
        for part in parts:
            assert part in told[name], name


def test_people_get_a_line_for_each_and_a_sum(config, file):
    file.write_text(f"[service]\nworkers = 0\nport = -1\n[endpoint]\napi_key = '{KEY}'\n")
    done = config("check")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (2, "")
    assert [line.split(":")[0] for line in lines[:-1]] == ["error", "error", "warning"]
    assert lines[-1] == "checked speechpool.toml and the environment: 2 errors, 1 warning"
    assert KEY not in done.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[service]\nport =\n", ["no TOML", "line 2"]),
        (b"# \xff", ["no TOML"]),
        (b"service = 1", ["service", "a table"]),
        (b"[service]\nfault = 'drop'", []),
        (b"[endpoint]\nurl = 'https://example.com'", ["endpoint.url", "wss://"]),
        (b"[endpoint]\nurl = 'wss://example.com'\nregion = 'intl'", ["exclude each other"]),
        (b"[endpoint]\nregion = 'us'", ["endpoint.region", "workspace"]),
        (b"[endpoint]\nregion = 'us'\nworkspace = 'ws-1'", []),
        (b"[endpoint]\nregion = 'us'\nworkspace = 'a.b/c'", ["no workspace id"]),
        (b"[service]\nprofile = 'quick'\nengine = 'replay'", ["quick", "healthy"]),
        (b"[service]\nidle_timeout = 0.001", ["idle_timeout", "minimum"]),
        (b"", []),
    ],
)
def test_one_mistake(config, tmp_path, content, words):
    (tmp_path / "some.toml").write_bytes(content)
    done = config("check", "some.toml")
    assert done.returncode == (2 if words else 0), done.stdout
    for part in words:
        assert part in done.stdout


def test_nothing_is_wrong_where_nothing_is_set(config):
    done = config("check", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"file": None, "errors": [], "warnings": []})
    assert "nothing is wrong" in config("check").stdout
    assert "nowhere.toml" in error_line(config("check", "nowhere.toml"), 2)


# ------------------------------------------------------------------------------------ a key in the file
def test_a_key_in_the_file_is_warned_about_and_used(monkeypatch, capsys, config, file, tmp_path):
    with Serving("marker", api_key=KEY) as service:
        file.write_text(f'[endpoint]\nurl = "{service.url}"\napi_key = "{KEY}"\n')
        done = config("check", "--json")
        assert done.returncode == 0
        (warning,) = json.loads(done.stdout)["warnings"]
        assert (warning["name"], warning["origin"]) == ("endpoint.api_key", "file:speechpool.toml")
        assert "DASHSCOPE_API_KEY" in warning["message"]
        done = run_here(monkeypatch, capsys, tmp_path, "say", "Hello.", "-o", "a.pcm")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line == f"speechpool: warning: {warning['message']}"
    assert KEY not in line


def test_the_key_of_the_service_has_its_own_variable(config, file):
    file.write_text(f'[service]\napi_key = "{KEY}"\n')
    assert "set the environment variable SPEECHPOOL_SERVICE__API_KEY" in config("check").stdout


# ------------------------------------------------------------------------------------ where to
def configured(**environment):
    return read(None, environment).section("endpoint")


def test_a_region_is_a_url_by_name():
    assert url_of(None, "intl", None) == "wss://dashscope-intl.aliyuncs.com"
    assert url_of(None, "us", "ws-1") == "wss://ws-1.us-east-1.maas.aliyuncs.com"
    assert url_of("ws://h", None, None) == "ws://h"
    assert url_of(None, None, "ws-1") is None


def test_what_stands_nearer_wins(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text("[endpoint]\nregion = 'hk'\n")

    def place(environ, **flags):
        return Wish(configured=read(file, environ).section("endpoint"), **flags).address()

    sdk = {"DASHSCOPE_WEBSOCKET_BASE_URL": "ws://sdk", "DASHSCOPE_API_REGION": "cn-hongkong"}
    assert place(sdk) == "wss://cn-hongkong.dashscope.aliyuncs.com"
    assert place(sdk | {"SPEECHPOOL_ENDPOINT__URL": "ws://own"}) == "ws://own"
    assert place(sdk | {"SPEECHPOOL_ENDPOINT__URL": "ws://own"}, region="cn") == "wss://dashscope.aliyuncs.com"
    assert place({}, url="ws://flag") == "ws://flag"


def test_the_variables_of_the_official_sdk_come_last():
    assert configured(DASHSCOPE_API_REGION="ap-southeast-1", DASHSCOPE_WORKSPACE_ID="ws-1") == {
        "region": "ap-southeast-1",
        "workspace": "ws-1",
    }
    assert configured(DASHSCOPE_API_REGION="cn-beijing") == {"region": "cn"}  # no workspace, as in the SDK
    assert configured(DASHSCOPE_API_REGION="us", DASHSCOPE_WEBSOCKET_BASE_URL="ws://sdk") == {"url": "ws://sdk"}
    assert configured(DASHSCOPE_API_REGION="", DASHSCOPE_API_KEY=KEY) == {}  # a local service must not get that key


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--region", "intel"], {}, ["'intel'", "cn, intl, hk, us"]),
        (["--region", "intl", "--endpoint", "ws://h"], {}, ["--endpoint and --region exclude each other"]),
        (["--region", "us"], {"DASHSCOPE_API_KEY": KEY}, ["workspace"]),
        (["--region", "intl"], {}, ["dashscope-intl.aliyuncs.com", "DASHSCOPE_API_KEY"]),
        ([], {"DASHSCOPE_API_REGION": "jp", "DASHSCOPE_WORKSPACE_ID": "ws-1"}, ["ws-1.ap-northeast-1.maas"]),
        (["--region", "jp", "--workspace", "ws-2"], {}, ["ws-2.ap-northeast-1.maas", "--api-key"]),
        (
            [],
            {"SPEECHPOOL_ENDPOINT__URL": "ws://h", "SPEECHPOOL_ENDPOINT__REGION": "cn"},
            ["SPEECHPOOL_ENDPOINT__REGION", "exclude"],
        ),
    ],
)
def test_a_wrong_place_is_one_line(monkeypatch, capsys, tmp_path, arguments, environment, words):
    done = run_here(monkeypatch, capsys, tmp_path, "say", "Hello.", "-o", "a.mp3", *arguments, **environment)
    line = error_line(done, 2)
    for part in words:
        assert part in line


def test_a_url_and_a_region_of_one_place_exclude_each_other():
    (error,) = read(None, {"SPEECHPOOL_ENDPOINT__URL": "ws://h", "SPEECHPOOL_ENDPOINT__REGION": "cn"}).errors
    assert error.name == "endpoint.region"
    with pytest.raises(SettingsError, match="exclude"):
        Wish(url="ws://h", region="cn").address()


# ------------------------------------------------------------------------------------ [pool] and [check]
def test_the_settings_of_the_checklist_are_its_flags():
    flags = set(inspect.signature(check_verb).parameters) - {"as_json", *Wish.__dataclass_fields__, "endpoint"}
    assert {name for section, name in settings() if section == "check"} == flags


def test_the_settings_of_a_pool_are_those_of_the_library(config, file):
    file.write_text('[pool]\nmax_size = 160\nidle_timeout = "none"\n')
    rows = shown(config("show", "--json", SPEECHPOOL_POOL__MAX_SIZE="170"))
    assert rows["pool.max_size"] == (170, "environment variable SPEECHPOOL_POOL__MAX_SIZE")
    assert rows["pool.idle_timeout"] == ("none", "file:speechpool.toml")
    for each in PoolSettings.describe():
        if each.name not in {"max_size", "idle_timeout"}:
            assert rows[f"pool.{each.name}"] == (each.default, "default")


def test_mistakes_of_a_pool(config, file):
    file.write_text('[pool]\nmax_sise = 3\nretry = -1\noverflow = "grwo"\nheartbeat = "soon"\nmin_size = 30\n')
    told = mistakes(config("check", "--json"))
    for place, words in {
        "pool.max_sise": "did you mean max_size?",
        "pool.retry": "at least 0",
        "pool.overflow": "grow",
        "pool.heartbeat": "a number",
        "pool.min_size": "30 is above max_size = 20",
    }.items():
        assert words in told.pop(place)
    assert told == {}
