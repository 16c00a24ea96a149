"""`patch()` and `python -m speechpool.dashscope`: in processes of their own, with the official SDK and without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dropin_kit import Service

HERE = Path(__file__).parent
RUNNER = [sys.executable, "-m", "speechpool.dashscope"]
PROGRAM = (HERE / "brief_program.txt").read_text()
"""The program of the documentation, as it stands there."""
FILES = ["result_0.mp3", "result_1.mp3", "result_2.mp3"]

with_and_without = pytest.mark.parametrize("installed", [True, False], ids=["installed", "missing"])


def run(command, folder=None, *, installed=True, **environment):
    """Run to the end; `installed`: whether the official SDK can be found."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DASHSCOPE_", "PYTHON"))}
    if not installed:
        kept["PYTHONPATH"] = str(HERE / "without_sdk")
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, cwd=folder, env=kept | environment
    )


def python(code, **options):
    """Run statements that assert, and return what they say."""
    done = run([sys.executable, "-c", code], **options)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


# ------------------------------------------------------------------------------------------ patch()
NAMES = """
import threading
from speechpool import dashscope as ours
from speechpool.dashscope.audio import tts, tts_v2

threads = [threading.Thread(target=ours.patch) for _ in range(8)]
[one.start() for one in threads], [one.join() for one in threads]
ours.patch()

import dashscope, dashscope.audio.tts_v2.speech_synthesizer as leaf, dashscope.audio.tts.speech_synthesizer as old_leaf
from dashscope.audio.tts_v2 import *

assert dashscope is not ours
for name in ("AudioFormat", "ResultCallback", "SpeechSynthesizer", "SpeechSynthesizerObjectPool"):
    assert globals()[name] is getattr(dashscope.audio.tts_v2, name) is getattr(leaf, name) is getattr(tts_v2, name), name
assert leaf.HotFix is tts_v2.HotFix
assert leaf is dashscope.audio.tts_v2.speech_synthesizer
for name in ("ResultCallback", "SpeechSynthesisResult", "SpeechSynthesizer"):
    assert getattr(dashscope.audio.tts, name) is getattr(old_leaf, name) is getattr(tts, name), name
assert dashscope.SpeechSynthesizer is tts.SpeechSynthesizer

from dashscope.common.error import InputRequired, InvalidTask
try:
    SpeechSynthesizer("model", "voice")
    raise AssertionError
except InputRequired:  # there is no key yet
    pass

from speechpool.dashscope.endpoints import configured, current_key, resolved
dashscope.api_key = "official"
assert current_key() == "official"
dashscope.base_websocket_api_url = "wss://official"
assert resolved(None, None) == "wss://official"
ours.api_key = "own"
assert current_key() == "own"
dashscope.set_region("ap-southeast-1", "ws-1")
assert resolved(None, None) == "wss://ws-1.ap-southeast-1.maas.aliyuncs.com/api-ws/v1/inference"
ours.patch("ws://127.0.0.1:1")
assert resolved("wss://named", None) == "ws://127.0.0.1:1"
ours.patch()
assert resolved(None, None) == "ws://127.0.0.1:1"

ours.unpatch()
assert resolved("wss://named", None) == "wss://named"
assert configured("base_websocket_api_url") == ours.base_websocket_api_url
ours.unpatch()
"""


@with_and_without
def test_the_official_names_are_ours(installed):
    assert python(NAMES, installed=installed) == ""  # no warning, in particular


EXACT = """
import sys
from importlib import import_module

NAMES = ["", ".audio", ".audio.tts", ".audio.tts.speech_synthesizer", ".audio.tts_v2", ".audio.tts_v2.speech_synthesizer"]
modules = [import_module("dashscope" + name) for name in NAMES]
before = [dict(vars(module)) for module in modules]
synthesizer = modules[-1].SpeechSynthesizer
finders = list(sys.meta_path)

from speechpool import dashscope as ours
for _ in range(2):
    ours.patch()
    assert modules[-2].SpeechSynthesizer is not synthesizer
    assert synthesizer.__init__.__globals__["SpeechSynthesizer"] is synthesizer  # what runs already stays whole
    ours.unpatch()
    assert [sys.modules["dashscope" + name] for name in NAMES] == modules
    assert [dict(vars(module)) for module in modules] == before
    assert sys.meta_path == finders
"""


def test_unpatch_restores_exactly():
    python(EXACT)


GONE = """
import sys
before = set(sys.modules), list(sys.meta_path)
from speechpool import dashscope as ours
ours.patch()
import dashscope.audio.tts_v2
ours.unpatch()
assert not [name for name in sys.modules if name.partition(".")[0] == "dashscope"]
assert sys.meta_path == before[1]
try:
    import dashscope
except ModuleNotFoundError as error:
    assert error.name == "dashscope"
"""


AGAIN = """
from speechpool import dashscope as ours
ours.patch()
import dashscope
ours.unpatch()
ours.patch()
dashscope.api_key = "set on the module that was imported first"
from speechpool.dashscope.endpoints import current_key
assert current_key() == dashscope.api_key
import sys
assert sys.modules["dashscope"] is dashscope
"""


def test_a_second_patch_serves_the_modules_of_the_first():
    python(AGAIN, installed=False)


def test_unpatch_leaves_nothing_where_nothing_was():
    python(GONE, installed=False)


def test_what_came_too_early_is_named():
    said = python(
        "import dashscope, logging, json\n"
        "from dashscope.audio.tts_v2 import *\n"
        "logging.basicConfig()\n"
        "from speechpool import dashscope as ours\n"
        "ours.patch()\n"
    )
    named = [line for line in said.splitlines() if line.startswith("WARNING:speechpool.dashscope:")]
    assert [line.split()[0].rpartition(":")[2] for line in named] == [
        "__main__.SpeechSynthesizer",
        "__main__.SpeechSynthesizerObjectPool",
    ]


UNCOVERED = """
from importlib.util import find_spec
from speechpool import dashscope as ours
ours.patch()
import dashscope

def told(statement):
    try:
        exec(statement)
    except ImportError as error:
        return str(error)
    raise AssertionError(statement)

for statement, name in {
    "from dashscope import Generation": "dashscope.Generation",
    "from dashscope import AioGeneration, SpeechSynthesizer": "dashscope.AioGeneration",
    "import dashscope.aigc.generation": "dashscope.aigc",
    "from dashscope.audio import asr": "dashscope.audio.asr",
    "from dashscope.audio.asr import Recognition": "dashscope.audio.asr",
    "from dashscope.audio.tts_v2 import VoiceEnrollmentService": "dashscope.audio.tts_v2.VoiceEnrollmentService",
}.items():
    words = told(statement)
    assert words.startswith(name + " is not covered"), words
    assert "dashscope.audio.tts_v2 only" in words and "pip install dashscope" in words
assert not hasattr(dashscope, "Generation") and not hasattr(dashscope.audio, "asr")
assert find_spec("dashscope") and find_spec("dashscope.audio.tts_v2")
import speechpool.dashscope.nowhere
"""


def test_what_is_not_covered_says_so_where_the_sdk_is_missing():
    done = run([sys.executable, "-c", UNCOVERED], installed=False)
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'speechpool.dashscope.nowhere'"


def test_with_the_sdk_the_rest_of_it_stays():
    python(
        "from speechpool import dashscope as ours; ours.patch()\n"
        "from dashscope import Generation\n"
        "from dashscope.audio.tts_v2 import VoiceEnrollmentService\n"
        "from dashscope.audio.tts_v2.speech_synthesizer import Request\n"
        "assert Generation.__module__.startswith('dashscope.')\n"
    )


# ------------------------------------------------------------------------------------------ the runner
SCRIPTS = {
    "facts": "import sys; print(sys.argv, __name__, __file__, __doc__, __package__, __spec__, sys.path[0], sys.modules['__main__'].__dict__ is globals())",
    "code": "import sys; sys.exit(3)",
    "words": "import sys; sys.exit('the end')",
    "error": "def deep():\n    {}['key']\ntry:\n    deep()\nexcept KeyError as error:\n    raise ValueError('wrong') from error\n",
    "syntax": "x = (\n",
    "hook": "import sys; sys.excepthook = lambda *error: print('hook', error[0], error[2].tb_lineno)\n1 / 0\n",
    "interrupt": "import signal; signal.raise_signal(signal.SIGINT)\n",
    "late": "import atexit, sys, threading, time\natexit.register(lambda: print('exit', sys.modules['__main__'].value))\nvalue = 7\n"
    "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\nraise LookupError('early')\n",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_as_under_plain_python(tmp_path, name):
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "script.py").write_text(SCRIPTS[name])
    arguments = ["program/script.py", "--url", "x", "-m", "-h"]
    plain = run([sys.executable, *arguments], tmp_path, installed=False)
    ours = run([*RUNNER, *arguments], tmp_path, installed=False)
    assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout)
    assert ours.stderr == plain.stderr


@pytest.mark.parametrize("name", ["code", "error", "late"])
def test_a_module_runs_as_under_plain_python(tmp_path, name):
    (tmp_path / "script.py").write_text(SCRIPTS[name].replace("sys.modules['__main__'].", ""))
    plain = run([sys.executable, "-m", "script", "--url", "x"], tmp_path, installed=False)
    ours = run([*RUNNER, "-m", "script", "--url", "x"], tmp_path, installed=False)
    assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout)
    frames = [line for line in plain.stderr.splitlines() if "runpy" not in line]
    assert ours.stderr.splitlines() == frames


def test_a_module_gets_its_arguments(tmp_path):
    (tmp_path / "script.py").write_text("import sys; print(sys.argv, __name__, __spec__.name, sys.path[0])")
    plain = run([sys.executable, "-m", "script", "--url", "x"], tmp_path, installed=False)
    assert run([*RUNNER, "-m", "script", "--url", "x"], tmp_path, installed=False).stdout == plain.stdout


def test_what_cannot_be_run_says_so(tmp_path):
    plain = run([sys.executable, "nowhere.py"], tmp_path)
    missing = run([*RUNNER, "nowhere.py"], tmp_path)
    assert (missing.returncode, missing.stderr) == (plain.returncode, plain.stderr)
    nothing = run(RUNNER, tmp_path)
    assert nothing.returncode == 2
    assert "name a script" in nothing.stderr
    assert "No module named nowhere" in run([*RUNNER, "-m", "nowhere"], tmp_path, installed=False).stderr
    helped = run([*RUNNER, "--help"], tmp_path)
    assert helped.returncode == 0
    assert "--url URL" in helped.stdout


# ------------------------------------------------------------------------------------------ the program of the documentation
@pytest.fixture(scope="module")
def speaking():
    service = Service(engine="replay")
    yield service
    service.close()


def check_files(done, folder, service):
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in folder.glob("result_*")) == FILES
    for name in FILES:
        assert (folder / name).read_bytes()[:2] in {b"\xff\xf3", b"\xff\xfb", b"ID"}
    assert done.stdout.count("First packet delay: ") == 3
    assert done.stderr == ""
    # The whole pool was open, and it was the pool that spoke.
    assert service.counts.tasks["completed"] % 3 == 0
    assert service.counts.connections % 20 == 0


def test_the_program_with_its_import_changed_and_its_url_pointed_here(tmp_path, speaking):
    changed = (
        PROGRAM.replace("import dashscope\n", "from speechpool import dashscope\n")
        .replace("from dashscope.audio", "from speechpool.dashscope.audio")
        .replace("wss://dashscope-intl.aliyuncs.com/api-ws/v1/inference", speaking.url)
    )
    (tmp_path / "program.py").write_text(changed)
    done = run([sys.executable, "program.py"], tmp_path, installed=False, DASHSCOPE_API_KEY="local")
    check_files(done, tmp_path, speaking)


@with_and_without
def test_the_program_unchanged(tmp_path, speaking, installed):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [*RUNNER, "--url", speaking.url, "program.py"]
    done = run(command, tmp_path, installed=installed, DASHSCOPE_API_KEY="local")
    check_files(done, tmp_path, speaking)
