"""A speech service as a child process, for the time of one command.

Whatever becomes of the parent, the child does not outlive it: it is ended on the way out, and should the parent be
killed, the end of its standard input tells the child (tests/cli/test_demo.py). It has a session of its own, so Ctrl-C
in a terminal reaches the parent only, which then ends it in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, Final, NoReturn

from speechpool.errors import ConnectFailed, SettingsError
from speechpool.synthesis import Endpoint

from .outcome import ExitCode

__all__ = ["main", "running_service"]

START_LIMIT: Final = 60.0
"""Seconds until it must listen; loading a voice takes about one."""
END_LIMIT: Final = 3.0
"""Seconds from SIGTERM to SIGKILL."""
_KEY: Final = "SPEECHPOOL_SERVICE__API_KEY"
_LISTENING: Final = "listening on "
_COMPLAINT: Final = "speechpool: error: "


@asynccontextmanager
async def running_service(engine: str | None = None, profile: str | None = None) -> AsyncIterator[Endpoint]:
    """Run a service on a free port of this machine; inside, it listens. Only this process knows its key.

    Args:
        engine: Who speaks; None: the default, or what the settings say.
        profile: Of the engine; None: its default.

    Cancellation: the child is ended first.

    Raises:
        SettingsError: The service refused its settings, e.g. an unknown engine.
        ConnectFailed: It did not come up; or it ended meanwhile, which ends what runs inside.
    """
    key = secrets.token_hex(16)
    command = [sys.executable, "-m", __name__, "--host", "127.0.0.1", "--port", "0", "--drain", "0"]
    command += ["--submission-rate", "none"]  # nobody shares it, and a demonstration starts more than three a second
    if engine is not None:
        command += ["--engine", engine]
    if profile is not None:
        command += ["--profile", profile]
    with tempfile.TemporaryFile() as complaints:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=complaints,
            env={**os.environ, _KEY: key},
            start_new_session=True,
        )
        try:
            url = await _listening(process, complaints)
            async with _watched(process, complaints):
                yield Endpoint(url, api_key=key)
        finally:
            await _end(process)


async def _listening(process: Process, complaints: IO[bytes]) -> str:
    """Return the URL that the child announces."""
    announced = asyncio.ensure_future(_announcement(process))
    try:
        await asyncio.wait((announced,), timeout=START_LIMIT)
        if not announced.done():
            raise ConnectFailed(
                f"the local service did not listen within {START_LIMIT:g} s; is the machine overloaded?"
            )
        if url := announced.result():
            return url
    finally:
        announced.cancel()
    raise _refusal(await process.wait(), complaints)


async def _announcement(process: Process) -> str | None:
    assert process.stdout is not None  # noqa: S101  # it is a pipe
    async for line in process.stdout:
        text = line.decode(errors="replace").strip()
        if text.startswith(_LISTENING):
            return text.removeprefix(_LISTENING)
    return None


@asynccontextmanager
async def _watched(process: Process, complaints: IO[bytes]) -> AsyncIterator[None]:
    """Cancel what runs inside when the child ends: a pool would wait for its return."""
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_fail_at_end(process, complaints))
            yield
            watch.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _fail_at_end(process: Process, complaints: IO[bytes]) -> NoReturn:
    raise _refusal(await process.wait(), complaints)


def _refusal(code: int, complaints: IO[bytes]) -> SettingsError | ConnectFailed:
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    said = next((line.removeprefix(_COMPLAINT) for line in reversed(lines) if line.startswith(_COMPLAINT)), None)
    if code == ExitCode.USAGE and said:
        return SettingsError(said)
    why = f": {said}" if said else "; try again, or run it by itself to see why: speechpool service"
    return ConnectFailed(f"the local service ended with code {code}{why}")


async def _end(process: Process) -> None:
    """End the child: politely, then not."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    ended = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait((ended,), timeout=END_LIMIT)
    finally:
        # Also where a second Ctrl-C cut the wait short.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    await ended


# ------------------------------------------------------------------------------------ in the child
def main() -> None:
    """Be the child: the verb `service`, that ends when standard input does."""
    from . import main as command

    threading.Thread(target=_end_with_parent, name="parent watch", daemon=True).start()
    sys.argv[1:1] = ["service"]
    command()


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
