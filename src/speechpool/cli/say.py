"""`speechpool say`: one text to a file, a pipe or a player."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from speechpool.audio import stream_seconds
from speechpool.errors import InvalidText, SettingsError, TaskFailed
from speechpool.text import MAX_TASK

if TYPE_CHECKING:
    from speechpool.protocol import Voice
    from speechpool.synthesis import AsyncSpeechPool, SpeechTask

    from .endpoints import Wish
    from .outputs import Output

__all__ = ["register"]

_FORMATS: Final = {".mp3": "mp3", ".wav": "wav", ".pcm": "pcm", ".opus": "opus"}
"""Formats by the ending of a file's name."""
_MOST_BYTES: Final = 4 * MAX_TASK
"""More UTF-8 than this is more text than a task may have, whatever it says."""

_UNKNOWN_VOICE: Final = "Engine return error code: 418"
"""What the provider says of a voice that does not fit the model."""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("say")(say)


def say(  # noqa: PLR0917  # flags
    context: typer.Context,
    text: Annotated[
        str | None, typer.Argument(help="What to say; '-' or nothing: standard input.", show_default=False)
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="File, its format by its ending: .mp3 .wav .pcm .opus; '-': standard output."
        ),
    ] = None,
    audio_format: Annotated[
        str | None, typer.Option("--format", help="mp3, wav, pcm or opus, where no ending tells it.")
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play it, by ffplay, mpv, aplay or afplay.")] = False,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="ws:// or wss:// URL; unset: the service on port 8765 of this machine, else one for this call only."
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(help="DashScope region in place of a URL: cn, intl, hk; with a workspace us, eu, jp and more."),
    ] = None,
    workspace: Annotated[str | None, typer.Option(help="Workspace id; some regions need one.")] = None,
    api_key: Annotated[
        str | None, typer.Option(help="Key of the endpoint; unset: the environment variable DASHSCOPE_API_KEY.")
    ] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="PEM file with the certificates to trust, for wss; unset: the system's.")
    ] = None,
    model: Annotated[str, typer.Option(help="Model.")] = "cosyvoice-v3-flash",
    voice: Annotated[str, typer.Option(help="Voice of that model.")] = "longanyang",
    sample_rate: Annotated[
        int | None, typer.Option(help="Hertz: 8000, 16000, 22050, 24000, 44100 or 48000; unset: 22050 (opus 24000).")
    ] = None,
    rate: Annotated[float, typer.Option(help="Speaking rate, 0.5 to 2.")] = 1.0,
    pitch: Annotated[float, typer.Option(help="Pitch, 0.5 to 2.")] = 1.0,
    volume: Annotated[int, typer.Option(help="Volume, 0 to 100.")] = 50,
    words: Annotated[bool, typer.Option("--words", help="Ask for the times of the words; with --json.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Sum up as one line of JSON.")] = False,
) -> None:
    """Say a text, and write the audio as it arrives.

    Up to 200,000 characters; a file appears when it is whole. The summary goes to standard output, or to standard
    error where the audio takes that.
    """
    from speechpool.protocol import Voice

    from .endpoints import Wish
    from .loop import run
    from .pieces import pieces

    said = list(pieces(_text(text)))
    wanted = Voice(
        model,
        voice,
        format=_format(output, audio_format, play=play),
        sample_rate=sample_rate,
        rate=rate,
        pitch=pitch,
        volume=volume,
        word_timestamps=words,
    )
    wish = Wish(
        url=endpoint,
        region=region,
        workspace=workspace,
        api_key=api_key,
        tls_ca=tls_ca,
        configured=(context.obj or {}).get("endpoint", {}),
    )
    try:
        with _outputs(output, wanted, play=play) as outputs:
            task = run(_speak(_Job(said, wanted, outputs, wish)))
    except BrokenPipeError:
        return  # who listened has heard enough
    _sum_up(task, output, as_json=as_json, to_stderr=output == "-")


# ------------------------------------------------------------------------------------ what is asked for
def _text(text: str | None) -> str:
    if text is not None and text != "-":
        return text
    if text is None and sys.stdin.isatty():
        raise InvalidText("there is no text: give some (speechpool say 'Hello.' -o hello.mp3), or pipe it in.")
    data = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise InvalidText(
            f"standard input holds more than {_MOST_BYTES:,} bytes, the limit of one task is {MAX_TASK:,} characters; "
            "cut it into several."
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"standard input is not UTF-8 (byte 0x{data[error.start]:02x} at {error.start:,}); convert it first, "
            "e.g. by iconv."
        ) from None


def _format(output: str | None, named: str | None, *, play: bool) -> str:
    if output is None and not play:
        raise SettingsError("there is nowhere for the audio to go: name a file (-o hello.mp3), or play it (--play).")
    if named is not None:
        return named
    if output is None:
        return "wav"  # every player plays it
    if output == "-":
        return "mp3"
    ending = Path(output).suffix.lower()
    if ending not in _FORMATS:
        known = " ".join(_FORMATS)
        raise SettingsError(f"{output!r} does not end in a known format ({known}); rename it, or name one by --format.")
    return _FORMATS[ending]


@contextmanager
def _outputs(path: str | None, voice: Voice, *, play: bool) -> Iterator[list[Output]]:
    """Open everything before anything is sent, and leave nothing behind where the run does not end well."""
    from .outputs import open_output
    from .players import PlayerOutput, find_player

    if path == "-" and sys.stdout.isatty():
        raise SettingsError(
            "standard output is a terminal, which cannot take audio; redirect it, or name a file by -o."
        )
    player = find_player(voice.format) if play else None
    outputs: list[Output] = []
    with ExitStack() as stack:
        if path is not None:
            outputs.append(open_output(path, voice.format))
            stack.callback(outputs[0].discard)
        if player is not None:
            outputs.append(PlayerOutput(player, voice.format, voice.effective_sample_rate))
            stack.callback(outputs[-1].discard)
        yield outputs
        stack.pop_all()


# ------------------------------------------------------------------------------------ the run
@dataclass(frozen=True, slots=True)
class _Job:
    pieces: list[str]
    voice: Voice
    outputs: list[Output]
    wish: Wish


async def _speak(job: _Job) -> SpeechTask:
    """Run the task, and return it when it is complete and its audio kept."""
    from speechpool.settings import Deadlines

    from .endpoints import chosen_endpoint, opened_pool

    with _progress(job.voice) as show:
        async with chosen_endpoint(job.wish) as endpoint:
            # A long text may take its time; a person watches, who has Ctrl-C.
            patient = Deadlines(total=None)
            async with opened_pool(endpoint, name="say", max_size=1, deadlines=patient) as pool:
                task = await _run_task(pool, job, show)
        for each in job.outputs:
            await each.finish()
    return task


async def _run_task(pool: AsyncSpeechPool, job: _Job, show: Callable[[SpeechTask, bytes], None]) -> SpeechTask:
    from speechpool.protocol import Audio

    try:
        async with pool.task(job.voice) as task:
            for piece in job.pieces:
                await task.send(piece)
            await task.finish()
            async for event in task:
                if isinstance(event, Audio):
                    await _write(job.outputs, event.data)
                    show(task, event.data)
    except TaskFailed as error:
        raise _explained(error, job.voice) from error
    return task


def _explained(error: TaskFailed, voice: Voice) -> TaskFailed:
    if _UNKNOWN_VOICE not in error.message:
        return error
    hint = f"model {voice.model!r} does not know the voice {voice.voice!r}; choose another by --voice"
    return TaskFailed(error.code, f"{error.message} ({hint})", endpoint=error.endpoint)


async def _write(outputs: list[Output], data: bytes) -> None:
    for each in list(outputs):
        try:
            await each.write(data)
        except BrokenPipeError:
            # A closed player ends the run only where nothing else takes the audio.
            if len(outputs) == 1:
                raise
            outputs.remove(each)


# ------------------------------------------------------------------------------------ what is shown
def _progress(voice: Voice) -> AbstractContextManager[Callable[[SpeechTask, bytes], None]]:
    return _status(voice) if sys.stderr.isatty() else nullcontext(lambda *_: None)


@contextmanager
def _status(voice: Voice) -> Iterator[Callable[[SpeechTask, bytes], None]]:
    """Keep one line on the terminal up to date."""
    from rich.console import Console

    head = b""

    with Console(stderr=True).status("connecting") as status:

        def show(task: SpeechTask, data: bytes) -> None:
            nonlocal head
            head = head or data[:64]
            seconds = stream_seconds(voice.format, voice.effective_sample_rate, head, task.audio_bytes)
            amount = f"{task.audio_bytes:,} bytes" if seconds is None else f"{seconds:.1f} s"
            status.update(f"{amount} of audio, the first after {(task.first_packet_delay or 0) * 1000:.0f} ms")

        yield show


def _sum_up(task: SpeechTask, output: str | None, *, as_json: bool, to_stderr: bool) -> None:
    summary = _summary(task, output)
    typer.echo(json.dumps(summary) if as_json else _sentence(summary), err=to_stderr)


def _summary(task: SpeechTask, output: str | None) -> dict[str, Any]:
    report = task.report
    summary: dict[str, Any] = {
        "outcome": report.outcome,
        "file": output,
        "format": task.voice.format,
        "sample_rate": task.voice.effective_sample_rate,
        "seconds": report.audio_seconds,
        "bytes": report.audio_bytes,
        "characters": report.characters,
        "first_packet_delay": report.first_packet_delay,
        "parts": {part: getattr(report, part) for part in ("queue", "connect", "start", "synthesis")},
        "end_to_end": report.end_to_end,
        "request_id": report.request_id,
        "retries": report.retries,
    }
    if task.voice.word_timestamps:
        summary["words"] = [
            {"text": word.text, "begin_time": word.begin_time, "end_time": word.end_time} for word in task.words
        ]
    return summary


def _sentence(summary: Mapping[str, Any]) -> str:
    where = {None: "played", "-": "written"}.get(summary["file"], summary["file"])
    length = "" if summary["seconds"] is None else f"{summary['seconds']:.1f} s of "
    kind = f"{summary['format']} at {summary['sample_rate']:,} Hz ({summary['bytes']:,} bytes)"
    first, all_ = (summary["first_packet_delay"] or 0.0) * 1000, summary["end_to_end"]
    return f"{where}: {length}{kind}, first audio after {first:.0f} ms, all after {all_:.2f} s"
