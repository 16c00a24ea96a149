"""What a look at a program's source finds, and what it honestly cannot."""

import pytest

from speechpool.errors import SettingsError
from speechpool.ops.tree import read

KEY = "sk-0123456789abcdef0123456789abcdef"


@pytest.fixture
def looked(tmp_path):
    def look(text, **files):
        (tmp_path / "app.py").write_text(text)
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        return read(tmp_path)

    return look


def ends(source):
    return [(pool.place.line, pool.end) for pool in source.pools]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f'KEY = "{KEY}"', True),
        (f'call("Bearer {KEY}")', True),
        ('Endpoint("wss://x", api_key="correct horse battery")', True),
        ('dashscope.api_key = "correct horse"', True),
        ('os.environ["DASHSCOPE_API_KEY"] = "correct horse"', True),
        ('api_key: str = "correct horse"', True),
        ("", False),
        ('Endpoint("wss://x", api_key="local")', False),
        ('Endpoint("wss://x", api_key=os.environ["DASHSCOPE_API_KEY"])', False),
        ('dashscope.api_key = os.environ["DASHSCOPE_API_KEY"]', False),
        ('dashscope.api_key = "YOUR-API-KEY"', False),
        ('print("set it to sk-your-key-goes-here")', False),
        ('name = "task-1234567890abcdef1234"', False),
    ],
)
def test_keys(looked, text, found):
    assert bool(looked(text).keys) is found


def test_keys_in_other_files_but_not_in_environments_or_hidden_folders(looked):
    source = looked(
        "", deploy_yaml=f"key: {KEY}", _env=f"DASHSCOPE_API_KEY={KEY}", venv__a_py=f'"{KEY}"', _git__config_json=f'"{KEY}"',
        image_bin=KEY,
    )  # fmt: skip
    assert [str(place) for place in source.keys] == ["deploy.yaml:1"]
    assert [str(place) for place in source.env_keys] == [".env:1"]


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("with SpeechPool(e) as pool:\n    pass", "closed"),
        ("async def main():\n    async with AsyncSpeechPool(e): pass", "closed"),
        ("pool = SpeechPool(e)\nwith pool:\n    pass", "closed"),
        ("pool = SpeechPool(e)\npool.close(drain=5.0)", "closed"),
        (
            "class App:\n    def __init__(self): self.pool = SpeechPool(e)\n    def stop(self): self.pool.close()",
            "closed",
        ),
        ("pool = stack.enter_context(SpeechPool(e))", "closed"),
        ("pool = SpeechSynthesizerObjectPool(max_size=10)\npool.shutdown()", "closed"),
        ("from speechpool import SpeechPool as Pool\nwith Pool(e): pass", "closed"),
        ("pool = SpeechPool(e)\nother.close()", "open"),
        ("SpeechPool(e)", "open"),
        ("async def main():\n    pool = await AsyncSpeechPool(e)", "open"),
        ("def make():\n    return SpeechPool(e)", "handed on"),
        ("serve(SpeechPool(e))", "handed on"),
        ("pools['a'] = SpeechPool(e)", "handed on"),
    ],
)
def test_the_end_of_a_pool(looked, text, end):
    assert [pool.end for pool in looked(text).pools] == [end]


def test_closed_by_its_name_in_another_file_is_no_proof(looked):
    assert ends(looked("pool = SpeechPool(e)", other_py="from app import pool\npool.close()")) == [(1, "handed on")]


@pytest.mark.parametrize(
    ("call", "size", "retries"),
    [
        ("SpeechPool(e)", 20, 2),
        ("SpeechPool(e, max_size=50, retry=0)", 50, 0),
        ("SpeechPool(e, max_size=SIZE)", None, 2),
        ("SpeechPool(e, settings=s)", None, None),
        ("SpeechPool(e, settings=s, max_size=7)", 7, None),
        ("SpeechPool(e, **more)", None, None),
        ("SpeechSynthesizerObjectPool(7)", 7, None),
    ],
)
def test_sizes_and_retries_that_are_written_there(looked, call, size, retries):
    (pool,) = looked(f"pool = {call}").pools
    assert (pool.size, pool.retries) == (size, retries)


BORROWED = """\
from dashscope.audio.tts_v2 import SpeechSynthesizerObjectPool
pool = SpeechSynthesizerObjectPool()
def speak():
    synthesizer = pool.borrow_synthesizer("model", "voice")
    try:
        synthesizer.call("Hello.")
        {good}
    except Exception:
        {bad}
"""


def test_what_becomes_of_failed_objects(looked):
    returned = "pool.return_synthesizer(synthesizer)"
    right = looked(BORROWED.format(good=returned, bad="synthesizer.close()"))
    assert (right.given_back, [place.line for place in right.disposed]) == ([], [9])
    wrong = looked(BORROWED.format(good="pass", bad=returned))
    assert ([place.line for place in wrong.given_back], wrong.disposed) == ([9], [])
    leaked = looked(BORROWED.format(good=returned, bad="file.close()"))
    assert (len(leaked.borrows), leaked.given_back, leaked.disposed) == (1, [], [])
    ours = looked(BORROWED.format(good="pass", bad=returned).replace("dashscope.audio", "speechpool.dashscope.audio"))
    assert (ours.borrows, ours.given_back, len(ours.drop_ins), ours.official) == ([], [], 1, [])


def test_patch_makes_all_official_pools_ours(looked):
    source = looked(BORROWED.format(good="pass", bad="pass"), main_py="from speechpool.dashscope import patch\npatch()")
    assert (len(source.drop_ins), source.official, source.borrows) == (1, [], [])


def test_what_handles_sigterm(looked):
    assert looked("import signal\nsignal.signal(signal.SIGTERM, f)").term == "app.py:2 handles SIGTERM"
    assert looked("from fastapi import FastAPI").term == "fastapi (app.py:1) handles SIGTERM"
    assert looked("import signal\nsignal.signal(signal.SIGINT, f)").term is None


def test_settings_and_what_is_no_python(looked):
    source = looked(
        "a = PoolSettings.load()\nb = PoolSettings(retry=0)", broken_py="def SpeechPool", odd_py='a = "\\d"'
    )
    assert ([p.line for p in source.loads], [p.line for p in source.no_retry]) == ([1], [2])
    assert source.unread == ["broken.py"]


def test_what_is_no_program_is_said(tmp_path):
    for folder, words in ((tmp_path / "nowhere", "is no folder"), (tmp_path, "holds no Python file")):
        with pytest.raises(SettingsError, match=words):
            read(folder)
