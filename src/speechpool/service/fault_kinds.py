"""The kinds of faults, and the moments of a task: one table for the parser, the help and the documentation.

A task walks through the phases in this order, with what is sent between them in brackets: starting, [task-started],
started, first-audio, [the first audio], mid-audio, finishing or cancelling, [task-finished], finished.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["FAULTS", "PHASES", "FaultKind"]

IDLE, STARTING, STARTED, FIRST_AUDIO = "idle", "starting", "started", "first-audio"
MID_AUDIO, FINISHING, CANCELLING, FINISHED = "mid-audio", "finishing", "cancelling", "finished"

PHASES: Final = {
    IDLE: "the handshake is done, no task was sent yet",
    STARTING: "run-task has come, task-started is not sent yet",
    STARTED: "task-started is sent",
    FIRST_AUDIO: "the first event about audio is about to be sent",
    MID_AUDIO: "the first audio is sent",
    FINISHING: "task-finished is about to be sent",
    CANCELLING: "task-finished is about to be sent because of a cancel",
    FINISHED: "task-finished is sent",
}
"""The moments at which a fault can strike, in their order."""

_WITH_A_TASK: Final = (STARTING, STARTED, FIRST_AUDIO, MID_AUDIO, FINISHING)
_BEFORE_AN_EVENT: Final = (STARTING, FIRST_AUDIO, MID_AUDIO, FINISHING, CANCELLING)

TIME, STATUS, CLOSE_CODE, ERROR_CODE = "time", "status[,seconds]", "close code", "error code"


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One kind of fault.

    Attributes:
        name: The word of `--fault`.
        meaning: What happens, in one line.
        phases: Where it can strike, its default first; empty: at the handshake.
        value: What its value is; empty: it takes none.
        default: The value where none is given, as one would write it.
    """

    name: str
    meaning: str
    phases: tuple[str, ...] = ()
    value: str = ""
    default: str = ""


def _first(phase: str, phases: Iterable[str]) -> tuple[str, ...]:
    return (phase, *(each for each in phases if each != phase))


FAULTS: Final = (
    FaultKind("refuse", "the handshake is answered with this status and Retry-After", value=STATUS, default="503"),
    FaultKind("handshake-delay", "the handshake is answered so much later", value=TIME, default="1s"),
    FaultKind("handshake-stall", "the handshake is never answered"),
    FaultKind("handshake-drop", "the socket is dropped instead of an answer"),
    FaultKind("stall", "nothing more is sent", _first(MID_AUDIO, (*_WITH_A_TASK, CANCELLING))),
    FaultKind("drop", "the socket is dropped without a close frame", _first(MID_AUDIO, PHASES)),
    FaultKind("close", "the connection is closed", _first(MID_AUDIO, PHASES), CLOSE_CODE, "1011"),
    FaultKind("throttle", "the task fails with Throttling.RateQuota", _WITH_A_TASK),
    FaultKind("fail", "the task fails with this code", _WITH_A_TASK, ERROR_CODE, "InternalError"),
    FaultKind("invalid-action", "the run-task is refused as if a task ran", (STARTING,)),
    FaultKind("delay", "what is sent from here on comes so much later", _BEFORE_AN_EVENT, TIME, "1s"),
    FaultKind("slow-read", "nothing is read for so long", _first(STARTED, PHASES), TIME, "1s"),
    FaultKind("early-audio", "audio comes before task-started", (STARTING,)),
    FaultKind("late-audio", "audio comes so long after the end of a cancelled task", (CANCELLING,), TIME, "0s"),
    FaultKind("duplicate-finish", "task-finished comes again so much later", (FINISHED,), TIME, "0s"),
    FaultKind("wrong-id", "the next event names another task", _first(FINISHING, _BEFORE_AN_EVENT)),
    FaultKind("broken-json", "the next event is cut in two", _first(FIRST_AUDIO, _BEFORE_AN_EVENT)),
)
"""Every kind of fault, for the parser, the help and the documentation."""
