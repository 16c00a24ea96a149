"""One probe for each question that no document answers. A probe checks the form of what it sees, and says it in words.

A question whose answer is None was not seen: the service did something else first, or nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

from cloud_wire import ENDS, Cloud, Seen, Wire

WORD = "Hi."
SENTENCE = "Seven brave geese fly over the quiet sea at dawn."
"""Long enough that its audio takes longer to arrive than one frame."""
INSTRUCTION = ("Speak in a calm and friendly voice, " * 3)[:101]
"""More than 100 characters, fewer than 128."""
ASKED_KBPS = 96
MP3_KBPS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
"""By whether it is MPEG 1, and the index in the header of a frame (ISO 11172-3, 13818-3)."""

MODELS = {"ssml_on_v2": "cosyvoice-v2", "default_format_of_sambert": "sambert-zhichu-v1"}
"""Of the probes that ask for another model than the one that is set."""

Answers = dict[str, str | None]


async def run_task_during_a_task(cloud: Cloud) -> Answers:
    first, second = _ids(2)
    async with _wire(cloud) as wire:
        await _start(wire, first)
        await wire.run(second)
        seen = await wire.next()
        failed = seen is not None and seen.kind == "task-failed"
        closed = await wire.next() if failed else None
        assert seen is None or seen.kind in {"task-failed", "task-started", "task-finished", "closed"}, seen
        return {
            "run-task during a task": None if seen is None else f"{seen} (for {_whose(seen, first, second)})",
            "close code and reason after task-failed": _closed(closed, seen),
        }


async def idle_connections(cloud: Cloud) -> Answers:
    (task,) = _ids(1)
    async with _wire(cloud) as fresh, _wire(cloud) as used, _wire(cloud, ping_every=cloud.idle / 4) as pinged:
        begun = time.monotonic()
        ended = (await used.speak(task, WORD))[-1]
        rested = ended if ended.kind == "task-finished" else None
        limit = cloud.idle * 1.25 + 1
        unused, after, kept = await asyncio.gather(*(wire.next(limit) for wire in (fresh, used, pinged)))
        for seen in (unused, after, kept):
            assert seen is None or seen.kind == "closed", seen
        stays = f"open after {limit:.0f} s"
        return {
            "life of a warm connection that never ran a task": _lived(unused, begun) or stays,
            "life of an idle connection after a task, its close code and reason": rested
            and (_lived(after, rested.at) or stays),
            "do pings extend the idle time": f"no: {_lived(kept, begun)}" if kept else f"yes: {stays}",
        }


async def same_task_id_twice(cloud: Cloud) -> Answers:
    (task,) = _ids(1)
    async with _wire(cloud) as wire:
        first = (await wire.speak(task, WORD))[-1]
        assert first.kind in ENDS, first
        if first.kind != "task-finished":
            return {"same task_id twice on a connection": None}
        second = (await wire.speak(task, WORD))[-1]
        assert second.kind in ENDS, second
        return {"same task_id twice on a connection": f"{second}"}


async def word_timestamps(cloud: Cloud) -> Answers:
    (task,) = _ids(1)
    async with _wire(cloud) as wire:
        found = await wire.speak(task, WORD, word_timestamp_enabled=True)
        assert found[-1].kind in ENDS, found
        types = {
            seen.event["payload"]["output"].get("type", "none") for seen in found if seen.kind == "result-generated"
        }
        places = sorted({_place(seen) for seen in found if _words(seen)})
        whole = found[-1].kind == "task-finished"
        return {
            "where word timestamps are": (", ".join(places) or "nowhere") if whole else None,
            "types of result-generated": ", ".join(sorted(types)) or None,
        }


async def text_clock(cloud: Cloud) -> Answers:
    """With the audio of one sentence the two clocks end apart: one began with the text, the other with the last audio."""
    (task,) = _ids(1)
    async with _wire(cloud) as wire:
        await _start(wire, task)
        wire.text(task, SENTENCE)
        sent = time.monotonic()
        found = await wire.until(*ENDS, timeout=cloud.gap * 1.25 + 2)
        assert found, "no audio and no end"
        heard = max((seen.at for seen in found if seen.kind == "audio"), default=None)
        end = found[-1]
        question = "is the clock between texts stopped while audio flows"
        if end.kind != "task-failed" or heard is None:
            return {question: None}
        since_text, since_audio = end.at - sent, end.at - heard
        stopped = abs(since_audio - cloud.gap) < abs(since_text - cloud.gap)
        told = f"{end}; {since_text:.1f} s after the text, {since_audio:.1f} s after the last audio"
        return {question: f"{'yes' if stopped else 'no'}: {told}"}


async def ssml_on_v2(cloud: Cloud) -> Answers:
    (task,) = _ids(1)
    async with _wire(cloud) as wire:
        text = f"<speak>{WORD}</speak>"
        found = await wire.speak(task, text, model=MODELS["ssml_on_v2"], voice="longxiaochun_v2", enable_ssml=True)
        return {"SSML on cosyvoice-v2": _verdict(found)}


async def instruction_limit(cloud: Cloud) -> Answers:
    (task,) = _ids(1)
    async with _wire(cloud) as wire:
        found = await wire.speak(task, WORD, instruction=INSTRUCTION)
        return {f"an instruction of {len(INSTRUCTION)} characters": _verdict(found)}


async def bit_rate_of_mp3(cloud: Cloud) -> Answers:
    (task,) = _ids(1)
    async with _wire(cloud) as wire:
        found = await wire.speak(task, WORD, format="mp3", sample_rate=22050, bit_rate=ASKED_KBPS)
        verdict, rate = _verdict(found), _mp3_rate(_audio(found))
        got = f", {rate} kbit/s came" if rate else ""
        return {f"mp3 with bit_rate {ASKED_KBPS}": verdict and verdict + got}


async def default_format_of_sambert(cloud: Cloud) -> Answers:
    (task,) = _ids(1)
    async with _wire(cloud) as wire:
        nothing = {"format": None, "sample_rate": None, "voice": None}
        await wire.run(task, text=WORD, model=MODELS["default_format_of_sambert"], **nothing)
        found = await wire.until(*ENDS)
        audio, verdict = _audio(found), _verdict(found)
        return {"Sambert's default format": ("wav" if audio[:4] == b"RIFF" else "pcm") if audio else verdict}


async def form_of_a_rate_limit(cloud: Cloud) -> Answers:
    """Last: what the others may have met. Nothing is done to provoke one."""
    assert all(cloud.throttled), cloud.throttled
    return {"form of the rate limit": "; ".join(sorted(set(cloud.throttled))) or None}


PROBES: dict[str, Callable[[Cloud], Awaitable[Answers]]] = {
    probe.__name__: probe
    for probe in (
        run_task_during_a_task,
        same_task_id_twice,
        word_timestamps,
        ssml_on_v2,
        instruction_limit,
        bit_rate_of_mp3,
        default_format_of_sambert,
        text_clock,
        idle_connections,
        form_of_a_rate_limit,
    )
}


# ------------------------------------------------------------------------------------------ reading
def _ids(count: int) -> list[str]:
    return [uuid.uuid4().hex for _ in range(count)]


@contextlib.asynccontextmanager
async def _wire(cloud: Cloud, **options: float) -> AsyncIterator[Wire]:
    wire = await cloud.open(**options)
    try:
        yield wire
    finally:
        await wire.close()


async def _start(wire: Wire, task: str) -> None:
    await wire.run(task)
    found = await wire.until("task-started", *ENDS)
    assert [seen.kind for seen in found[-1:]] == ["task-started"], f"the task did not start: {found[-1:]}"


def _whose(seen: Seen, first: str, second: str) -> str:
    return (
        {first: "the first task", second: "the second task"}.get(seen.event["header"].get("task_id"), "no task")
        if seen.event
        else "the connection"
    )


def _closed(closed: Seen | None, failed: Seen | None) -> str | None:
    if failed is None or failed.kind != "task-failed":
        return None
    if closed is None:
        return "none: the connection stays open"
    return f"{closed}, {closed.at - failed.at:.2f} s later"


def _lived(seen: Seen | None, begun: float) -> str | None:
    return None if seen is None else f"{seen} after {seen.at - begun:.1f} s"


def _verdict(found: list[Seen]) -> str | None:
    assert found, "nothing came"
    end = found[-1]
    assert end.kind in ENDS, end
    return "accepted" if end.kind == "task-finished" else f"refused: {end}"


def _audio(found: list[Seen]) -> bytes:
    return b"".join(seen.audio for seen in found)


def _words(seen: Seen) -> bool:
    output = seen.event.get("payload", {}).get("output") or {}
    return bool((output.get("sentence") or {}).get("words"))


def _place(seen: Seen) -> str:
    return seen.event["payload"]["output"].get("type") or seen.kind


def _mp3_rate(audio: bytes) -> int | None:
    at = next((at for at in range(len(audio) - 2) if audio[at] == 0xFF and audio[at + 1] & 0xE6 == 0xE2), None)
    return None if at is None else MP3_KBPS[audio[at + 1] & 0x18 == 0x18][audio[at + 2] >> 4]
