"""The second dialect, under the same seam."""

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechpool.errors import ProtocolViolation
from speechpool.protocol import Audio, Dialect, Failed, Finished, Segment, Started, Voice
from speechpool.protocol.cosyvoice import CosyVoice
from speechpool.testing.tiny import Tiny

VOICE = Voice("tiny", "ada")


def reply(**fields):
    return json.dumps({"id": "1", **fields}).encode()


def test_both_dialects_fit_the_seam():
    dialects: list[Dialect] = [CosyVoice(), Tiny()]
    segments: list[Segment] = [dialect.segment(VOICE, "1") for dialect in dialects]
    assert [segment.id for segment in segments] == ["1", "1"]


def test_a_whole_task():
    segment = Tiny().segment(VOICE, "1")
    assert json.loads(segment.begin("Hello.")) == {"id": "1", "voice": "ada", "text": "Hello."}
    assert segment.feed(reply(audio=base64.b64encode(b"abc").decode())) == (Started(), Audio(b"abc"))
    assert segment.feed(reply(done=True)) == (Finished(),)
    assert segment.ended
    with pytest.raises(ProtocolViolation):
        segment.feed(reply(done=True))


def test_failure_and_foreign_frames():
    segment = Tiny().segment(VOICE, "1")
    segment.begin("Hello.")
    assert segment.feed(json.dumps({"id": "2", "done": True}).encode()) == ()
    assert segment.stray
    assert segment.feed(reply(error="busy")) == (Started(), Failed("busy", "", retryable=False))


@given(st.binary(max_size=60) | st.text(max_size=20).map(lambda text: reply(audio=text)))
def test_any_frame_is_an_event_or_a_typed_error(frame):
    segment = Tiny().segment(VOICE, "1")
    segment.begin("Hello.")
    with contextlib.suppress(ProtocolViolation):
        segment.feed(frame)
