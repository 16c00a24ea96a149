"""The order of a task, as a table.

Client and server walk the same table: a step is legal on both ends or on neither. Instructions go from client to
server, events from server to client.

    IDLE ─run-task─▶ STARTING ─task-started─▶ RUNNING ─finish-task─▶ FINISHING ─task-finished─▶ IDLE
                                                 └──────cancel──────────┴─▶ CANCELLING ─task-finished─▶ IDLE
    any but IDLE ──task-failed──▶ DEAD (the server closes the connection)

Source: API reference, "interaction flow"; the high-concurrency page for `run-task` during a task.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum, auto
from typing import Final

__all__ = ["TABLE", "State", "Step"]


class State(IntEnum):
    """Where a connection stands. An integer, because a plain member of an enum is slow to look up in a table."""

    IDLE = auto()
    STARTING = auto()
    RUNNING = auto()
    FINISHING = auto()
    CANCELLING = auto()
    DEAD = auto()


class Step(StrEnum):
    """What moves it. The values are the words of the wire, where the wire has one."""

    RUN = "run-task"
    TEXT = "continue-task"
    FLUSH = "flush"
    FINISH = "finish-task"
    CANCEL = "cancel"
    STARTED = "task-started"
    GENERATED = "result-generated"
    FINISHED = "task-finished"
    FAILED = "task-failed"


TABLE: Final[dict[State, dict[Step, State]]] = {
    State.IDLE: {
        Step.RUN: State.STARTING,
    },
    State.STARTING: {
        Step.STARTED: State.RUNNING,
        Step.FAILED: State.DEAD,
    },
    State.RUNNING: {
        Step.TEXT: State.RUNNING,
        Step.FLUSH: State.RUNNING,
        Step.GENERATED: State.RUNNING,
        Step.FINISH: State.FINISHING,
        Step.CANCEL: State.CANCELLING,
        Step.FAILED: State.DEAD,
    },
    State.FINISHING: {
        Step.GENERATED: State.FINISHING,
        # A cancel may follow a normal finish while audio is still arriving.
        Step.CANCEL: State.CANCELLING,
        Step.FINISHED: State.IDLE,
        Step.FAILED: State.DEAD,
    },
    State.CANCELLING: {
        # Frames in flight may still arrive between cancel and task-finished.
        Step.GENERATED: State.CANCELLING,
        Step.FINISHED: State.IDLE,
        Step.FAILED: State.DEAD,
    },
    State.DEAD: {},
}
