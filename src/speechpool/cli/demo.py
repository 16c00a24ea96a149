"""`speechpool demo`: a local service, a pool, some speech, and how well it went."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speechpool.errors import SettingsError, SpeechPoolError

from .outcome import CannotWrite, ExitCode, message_of
from .sentences import OPENING, STREAM

if TYPE_CHECKING:
    from speechpool.protocol import Voice
    from speechpool.synthesis import AsyncSpeechPool, Speech
    from speechpool.telemetry import Report

    from .rehearsal import Pace, Plan
    from .screen import Screen

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("demo")(demo)


def demo(  # noqa: PLR0917  # flags
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory for the audio.")] = Path("demo"),
    engine: Annotated[str, typer.Option(help="Who speaks: hibari, or another engine with mp3.")] = "hibari",
    texts: Annotated[
        Path | None, typer.Option(help="File with the sentences of the stream, one a line; unset: our own.")
    ] = None,
    requests: Annotated[int, typer.Option(help="Sentences in the stream.", min=1, max=10_000)] = 30,
    seed: Annotated[int, typer.Option(help="Of the arrivals.")] = 6,
    as_json: Annotated[bool, typer.Option("--json", help="Tell everything as one line of JSON.")] = False,
) -> None:
    """Start a service, speak over a pool, and show the five signals beside their targets.

    Three sentences at once go to result_0.mp3, result_1.mp3 and result_2.mp3; more follow as a Poisson stream at half
    of what the service manages. A missed target is explained, and no failure; a failed task is one.
    """
    from .loop import run
    from .screen import Screen

    sentences = _sentences(texts)
    directory = _directory(output)
    wanted = _Wanted(directory, engine, sentences, requests, seed)
    result = run(_demo(wanted, Screen(quiet=as_json)))
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
    if result.failures:
        first = message_of(result.failures[0])
        typer.echo(
            f"speechpool: error: {len(result.failures)} of {result.tasks} tasks failed, the first with: {first}",
            err=True,
        )
        raise typer.Exit(ExitCode.TASK_FAILED)


def _sentences(path: Path | None) -> Sequence[str]:
    if path is None:
        return STREAM
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"--texts {path} cannot be read: {why}.") from error
    sentences = [line for line in lines if line]
    if not sentences:
        raise SettingsError(f"--texts {path} is empty; write one sentence a line.")
    return sentences


def _directory(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"{path} cannot be made: {error.strerror}; choose another directory by --output.") from error
    return path


# ------------------------------------------------------------------------------------ the run
@dataclass(frozen=True, slots=True)
class _Wanted:
    directory: Path
    engine: str
    sentences: Sequence[str]
    requests: int
    seed: int


@dataclass(frozen=True, slots=True)
class File:
    """One file of audio.

    Attributes:
        path: Where it is.
        text: What it says.
        seconds: Its length.
        first_packet_delay: Seconds until its first audio came.
    """

    path: Path
    text: str
    seconds: float
    first_packet_delay: float


@dataclass(slots=True)
class _Result:
    files: list[File] = field(default_factory=list)
    failures: list[SpeechPoolError] = field(default_factory=list)
    tasks: int = 0
    pace: Pace | None = None
    plan: Plan | None = None
    report: Report | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "files": [{**asdict(file), "path": str(file.path)} for file in self.files],
            "tasks": self.tasks,
            "failures": [message_of(error) for error in self.failures],
            "pace": asdict(self.pace) if self.pace else None,
            "plan": asdict(self.plan) if self.plan else None,
            "report": self.report.to_dict() if self.report else None,
        }


async def _demo(wanted: _Wanted, screen: Screen) -> _Result:
    from speechpool.protocol import Voice

    from .child import running_service
    from .endpoints import opened_pool
    from .rehearsal import measure, plan

    voice = Voice("cosyvoice-v3-flash", "longanyang")
    result = _Result()
    async with contextlib.AsyncExitStack() as stack:
        with screen.busy("starting a speech service"):
            endpoint = await stack.enter_async_context(running_service(wanted.engine))
        screen.service(endpoint.url, wanted.engine)
        with screen.busy("measuring how fast it speaks"):
            result.pace = pace = await measure(endpoint, voice, wanted.sentences)
        pool = await stack.enter_async_context(opened_pool(endpoint, name="demo", max_size=len(OPENING)))
        await pool.wait_ready()
        speaker = _Speaker(pool, voice, result)
        await speaker.say_at_once(OPENING, wanted.directory)
        screen.files(result.files)
        result.plan = stream = plan(pace, wanted.requests, wanted.seed)
        screen.plan(pace, stream)
        await pool.resize(stream.max_size)
        await pool.wait_ready()
        with screen.progress(wanted.requests) as advance:
            await speaker.say_as_they_come(_texts(wanted.sentences, stream.sentences), stream.arrivals, advance)
        result.report = report = pool.report()
    screen.signals(report)
    screen.next_steps(wanted.directory)
    return result


def _texts(sentences: Sequence[str], each: int) -> Iterator[str]:
    """Yield texts of some sentences without end."""
    endless = itertools.cycle(sentences)
    while True:
        yield " ".join(next(endless) for _ in range(each))


class _Speaker:
    """Speaks over a pool, and keeps what becomes of each task in `result`."""

    def __init__(self, pool: AsyncSpeechPool, voice: Voice, result: _Result) -> None:
        self._pool = pool
        self._voice = voice
        self._result = result

    async def say_at_once(self, sentences: Sequence[str], directory: Path) -> None:
        """Say some sentences at the same time, each into a file."""
        speeches = await asyncio.gather(*map(self._say, sentences))
        for number, (sentence, speech) in enumerate(zip(sentences, speeches, strict=True)):
            if speech is not None:
                path = directory / f"result_{number}.mp3"
                try:
                    speech.save(path)
                except OSError as error:
                    raise CannotWrite(
                        f"{path} cannot be written: {error.strerror}; choose another directory."
                    ) from error
                self._result.files.append(File(path, sentence, speech.duration or 0.0, speech.first_packet_delay))

    async def say_as_they_come(
        self, texts: Iterator[str], arrivals: Sequence[float], advance: Callable[[], None]
    ) -> None:
        """Begin a text at each arrival, whatever became of those before."""
        clock = asyncio.get_running_loop().time
        start = clock()
        async with asyncio.TaskGroup() as group:
            for arrival in arrivals:
                await asyncio.sleep(max(0.0, start + arrival - clock()))
                group.create_task(self._say(next(texts))).add_done_callback(lambda _: advance())

    async def _say(self, text: str) -> Speech | None:
        self._result.tasks += 1
        try:
            return await self._pool.synthesize(text, self._voice)
        except SpeechPoolError as error:
            self._result.failures.append(error)
            return None
