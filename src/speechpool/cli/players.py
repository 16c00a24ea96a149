"""`--play`: a player that is installed, fed while the audio arrives."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from speechpool.audio import wav_header
from speechpool.errors import SettingsError

from .outcome import CannotWrite
from .outputs import FileOutput

__all__ = ["Player", "PlayerOutput", "find_player"]


@dataclass(frozen=True, slots=True)
class Player:
    """A program that plays audio.

    Attributes:
        name: The program.
        arguments: What it is called with; a path follows where it plays files only.
        formats: What it plays.
        from_pipe: It plays what comes in on standard input.
    """

    name: str
    arguments: tuple[str, ...]
    formats: tuple[str, ...]
    from_pipe: bool = True


_PLAYERS: Final = (
    Player("ffplay", ("-nodisp", "-autoexit", "-loglevel", "error", "-i", "pipe:0"), ("wav", "mp3", "opus")),
    Player("mpv", ("--no-video", "--no-terminal", "-"), ("wav", "mp3", "opus")),
    Player("aplay", ("-q", "-"), ("wav",)),
    Player("afplay", (), ("wav", "mp3"), from_pipe=False),
)


def find_player(audio_format: str) -> Player:
    """Return the first player on PATH that plays a format; `pcm` is played as `wav`.

    Raises:
        SettingsError: There is none.
    """
    wanted = "wav" if audio_format == "pcm" else audio_format
    fitting = [player for player in _PLAYERS if wanted in player.formats]
    for player in fitting:
        if shutil.which(player.name):
            return player
    names = ", ".join(player.name for player in fitting)
    raise SettingsError(f"--play needs a player for {audio_format}, and none of {names} is on PATH; install one.")


class PlayerOutput:
    """Feeds a player; an `Output`.

    Args:
        player: Which one.
        audio_format: What it will get.
        sample_rate: Hertz.
    """

    def __init__(self, player: Player, audio_format: str, sample_rate: int) -> None:
        self._player = player
        self._process: Process | None = None
        self._head = wav_header(sample_rate) if audio_format == "pcm" else b""
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._file: FileOutput | None = None
        if not player.from_pipe:
            self._directory = tempfile.TemporaryDirectory(prefix="speechpool-")
            audio_format = "wav" if audio_format == "pcm" else audio_format
            self._path = Path(self._directory.name) / f"speech.{audio_format}"
            self._file = FileOutput(self._path, audio_format)

    async def write(self, data: bytes) -> None:
        """Hand over the next bytes; waits while the player has enough.

        Raises:
            BrokenPipeError: The player was closed.
        """
        data, self._head = self._head + data, b""
        if self._file is not None:
            await self._file.write(data)
            return
        if self._process is None:
            self._process = await self._start(stdin=PIPE)
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101  # it was asked for
        try:
            if pipe.is_closing():
                raise BrokenPipeError
            pipe.write(data)
            await pipe.drain()
        except ConnectionError:
            await self._wait()
            raise BrokenPipeError from None

    async def finish(self) -> None:
        """Wait until the player has played everything.

        Raises:
            CannotWrite: The player failed.
        """
        try:
            if self._file is not None:
                await self._file.finish()
                self._process = await self._start(str(self._path), stdin=DEVNULL)
            elif self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
            await self._wait()
        finally:
            self.discard()

    def discard(self) -> None:
        """Stop the player."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        if self._file is not None and self._directory is not None:
            self._file.discard()
            self._directory.cleanup()

    async def _start(self, *path: str, stdin: int) -> Process:
        player = self._player
        return await asyncio.create_subprocess_exec(
            player.name, *player.arguments, *path, stdin=stdin, stdout=DEVNULL, stderr=PIPE
        )

    async def _wait(self) -> None:
        if self._process is None or self._process.stderr is None:
            return
        said = (await self._process.stderr.read()).decode(errors="replace").strip().splitlines()
        code = await self._process.wait()
        if code:
            why = f": {said[-1]}" if said else ""
            raise CannotWrite(f"the player {self._player.name} ended with code {code}{why}")
