"""Where a lease was borrowed, and where its holder is now: kept for next to nothing, sought only when somebody asks."""

from __future__ import annotations

import asyncio
import pathlib
import sys
import traceback
from collections.abc import Iterable, Iterator
from itertools import islice
from types import CodeType, FrameType
from typing import Any

__all__ = ["RawStack", "capture", "holders", "render"]

RawStack = tuple[tuple[CodeType, int], ...]
"""(code, offset of the last instruction), innermost first. Holds no frame, so no local variable stays alive."""

_DEPTH = 5
_OURS = str(pathlib.Path(__file__).parent)
_ASYNCIO = str(pathlib.Path(asyncio.__file__).parent)
_TURN = asyncio.Handle._run.__code__
"""What runs a task for one turn of asyncio's loop."""
_MOST_TASKS = 2000
"""Tasks that a report looks at, some 2 us each: the loop waits for it."""
_MOST_SHOWN = 2


def capture(skip: int) -> RawStack:
    """Return the stack without its innermost `skip` frames; 1 is the caller of this function.

    Costs 0.2 us for each frame that is returned and next to nothing for one that is skipped.
    """
    frame: FrameType | None = sys._getframe(skip)
    pairs: list[tuple[CodeType, int]] = []
    while frame is not None and len(pairs) < _DEPTH:
        code = frame.f_code
        if code is _TURN:
            break  # what follows is the same for every borrower
        pairs.append((code, frame.f_lasti))
        frame = frame.f_back
    return tuple(pairs)


def render(stack: RawStack) -> str:
    """Return a stack as a traceback shows it, outermost first, without the frames of the pool and of the event loop."""
    return _formatted((code, _line(code, lasti)) for code, lasti in reversed(stack) if not _is(_ASYNCIO, code))


def holders(stack: RawStack, loop: asyncio.AbstractEventLoop) -> str:
    """Say where the tasks of `loop` are now that may hold what was borrowed with `stack`.

    Nothing is kept about the task that borrowed. It is known again by what it still runs: functions that were on the
    stack when it borrowed, and those of them that still wait in the same line. Two tasks that came the same way cannot
    be told apart, and two are shown.
    """
    tasks = asyncio.all_tasks(loop)
    borrowed = {code: _line(code, lasti) for code, lasti in stack if not (_is(_OURS, code) or _is(_ASYNCIO, code))}
    found = [(_likeness(frames, borrowed), task, frames) for task, frames in _waiting(islice(tasks, _MOST_TASKS))]
    best = max((likeness for likeness, _, _ in found), default=(0, 0))
    alike = [(task, frames) for likeness, task, frames in found if likeness == best and best > (0, 0)]
    if not alike:
        return f"None of the {len(tasks)} tasks looks like its holder: that one has ended, or is a thread"
    shown = "\n".join(f"task {task.get_name()!r} at:\n{_present(frames)}" for task, frames in alike[:_MOST_SHOWN])
    which = "Its holder is now" if len(alike) == 1 else f"Its holder is one of {len(alike)} tasks, e.g. now"
    return f"{which} {shown}"


def _waiting(tasks: Iterable[asyncio.Task[Any]]) -> Iterator[tuple[asyncio.Task[Any], list[FrameType]]]:
    """The tasks that hold something, perhaps, with their frames, outermost first."""
    for task in tasks:
        frames = list(_frames(task))
        if not any(frame.f_code.co_name == "borrow" and _is(_OURS, frame.f_code) for frame in frames):
            yield task, frames


def _frames(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    # Task.get_stack() knows the outermost coroutine only.
    coroutine: Any = task.get_coro()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield frame
        coroutine = coroutine.cr_await


def _likeness(frames: list[FrameType], borrowed: dict[CodeType, int]) -> tuple[int, int]:
    """How many functions of the borrower's stack still run, and how many of them in the same line."""
    same = [frame for frame in frames if frame.f_code in borrowed]
    return len(same), sum(frame.f_lineno == borrowed[frame.f_code] for frame in same)


def _present(frames: list[FrameType]) -> str:
    return _formatted((frame.f_code, frame.f_lineno) for frame in frames)


def _formatted(lines: Iterable[tuple[CodeType, int]]) -> str:
    shown = [
        traceback.FrameSummary(code.co_filename, line, code.co_name) for code, line in lines if not _is(_OURS, code)
    ]
    return "".join(traceback.StackSummary.from_list(shown).format()).rstrip()


def _is(package: str, code: CodeType) -> bool:
    return code.co_filename.startswith(package)


def _line(code: CodeType, lasti: int) -> int:
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno
