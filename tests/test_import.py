"""What importing the library costs: counted in modules, because times differ between machines."""

import subprocess
import sys


def modules_after(statement):
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_vocabulary_loads_no_event_loop_and_no_websocket():
    loaded = modules_after("import speechpool")
    assert not loaded & {"asyncio", "picows", "uvloop", "msgspec"}


def test_the_pool_loads_nothing_of_the_extras_and_far_less_than_the_official_sdk():
    loaded = modules_after("from speechpool import AsyncSpeechPool, SpeechPool, Endpoint, Voice")
    tops = {name.partition(".")[0] for name in loaded}
    assert not tops & {
        "typer",
        "rich",
        "pydantic",
        "numpy",
        "onnxruntime",
        "starlette",
        "dashscope",
        "speechpool.service",
    }
    assert "importlib.metadata" not in loaded  # a fifth of the whole import
    assert 2.5 * len(loaded) < len(modules_after("import dashscope"))
