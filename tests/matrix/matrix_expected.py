"""What every cell has to show, written down before the run: outcome of the task / fate of the connection / handshakes.

Why, by the promises of a task and of the pool:

- What breaks before the first audio is tried once more on a fresh connection, where the error allows it (`retry`); after
  it the task fails, since nobody may hear a thing twice.
- A network that stays broken is told as what it is (`down`) as soon as it counts as an outage, not by a timeout.
- A dropped socket is known at once, a half-open one by the heartbeat, a silent server by the deadline.
- What only takes its time costs neither the task nor the connection.
- A connection that broke, or brought what nobody asked for, is closed, and one handshake replaces it. A barge-in keeps
  it, if the server confirms.
- A dial that fails beside a running task does not touch the task.
"""

from matrix_cell import PHASES

TABLE = """
proxy latency    ok/kept/1        ok/kept/0        ok/kept/0        ok/kept/0        ok/kept/0        ok/kept/0           ok/kept/0           cancel/kept/0
proxy bandwidth  ok/kept/1        ok/kept/0        ok/kept/0        ok/kept/0        ok/kept/0        ok/kept/0           ok/kept/0           cancel/kept/0
proxy slow-close retry/broke/2    ok/lost/2        retry/broke/1    retry/broke/1    retry/broke/1    lost/broke/1        lost/broke/1        cancel/broke/1
proxy timeout    down/undialled/1 down/lost/1      down/broke/1     down/broke/1     down/broke/1     lost/broke/1        lost/broke/1        cancel/broke/1
proxy reset-peer down/undialled/1 down/lost/1      down/broke/1     down/broke/1     down/broke/1     lost/broke/1        lost/broke/1        cancel/broke/1
proxy slicer     ok/kept/1        ok/kept/0        ok/kept/0        ok/kept/0        ok/kept/0        ok/kept/0           ok/kept/0           cancel/kept/0
proxy limit-data down/undialled/1 down/broke/1     down/broke/1     down/broke/1     down/broke/1     lost/broke/1        lost/broke/1        cancel/broke/1
proxy half-open  down/undialled/1 down/lost/1      down/broke/1     down/broke/1     down/broke/1     lost/broke/1        lost/broke/1        cancel/broke/1
proxy no-pong    ok/kept/1        ok/lost/1        ok/lost/1        ok/lost/1        ok/lost/1        ok/lost/1           ok/lost/1           cancel/lost/1
proxy refuse     down/undialled/1 ok/kept/1        ok/kept/1        ok/kept/1        ok/kept/1        ok/kept/1           ok/kept/1           cancel/kept/1
proxy drop       ok/undialled/1   ok/lost/1        retry/broke/1    retry/broke/1    retry/broke/1    lost/broke/1        lost/broke/1        cancel/broke/1
refuse           down/undialled/1 ok/kept/1        ok/kept/1        ok/kept/1        ok/kept/1        ok/kept/1           ok/kept/1           cancel/kept/1
handshake-delay  ok/kept/1        ok/kept/1        ok/kept/1        ok/kept/1        ok/kept/1        ok/kept/1           ok/kept/1           cancel/kept/1
handshake-stall  down/undialled/1 ok/kept/1        ok/kept/1        ok/kept/1        ok/kept/1        ok/kept/1           ok/kept/1           cancel/kept/1
handshake-drop   down/undialled/1 ok/kept/1        ok/kept/1        ok/kept/1        ok/kept/1        ok/kept/1           ok/kept/1           cancel/kept/1
stall            retry/late/2     retry/late/1     retry/late/1     retry/late/1     retry/late/1     late/late/1         late/late/1         cancel/unconfirmed/1
drop             ok/lost/2        ok/lost/2        retry/broke/1    retry/broke/1    retry/broke/1    lost/broke/1        lost/broke/1        cancel/broke/1
close            ok/lost/2        ok/lost/2        retry/broke/1    retry/broke/1    retry/broke/1    lost/broke/1        lost/broke/1        cancel/broke/1
throttle         retry/failed/2   retry/failed/1   retry/failed/1   retry/failed/1   retry/failed/1   refused/failed/1    refused/failed/1    -
fail             retry/failed/2   retry/failed/1   retry/failed/1   retry/failed/1   retry/failed/1   refused/failed/1    refused/failed/1    -
invalid-action   retry/failed/2   retry/failed/1   retry/failed/1   -                -                -                   -                   -
delay            ok/kept/1        ok/kept/0        ok/kept/0        ok/kept/0        ok/kept/0        ok/kept/0           ok/kept/0           cancel/kept/0
slow-read        ok/kept/1        ok/kept/1        ok/kept/0        ok/kept/0        ok/kept/0        ok/kept/0           ok/kept/0           cancel/kept/0
early-audio      retry/stray/2    retry/stray/1    retry/stray/1    -                -                -                   -                   -
late-audio       cancel/lost/2    cancel/lost/1    cancel/lost/1    cancel/lost/1    cancel/lost/1    cancel/lost/1       cancel/lost/1       cancel/lost/1
duplicate-finish ok/lost/2        ok/lost/1        ok/lost/1        ok/lost/1        ok/lost/1        ok/lost/1           ok/lost/1           cancel/lost/1
wrong-id         retry/stray/2    retry/stray/1    retry/stray/1    retry/stray/1    retry/stray/1    protocol/stray/1    protocol/stray/1    cancel/stray/1
broken-json      retry/protocol/2 retry/protocol/1 retry/protocol/1 retry/protocol/1 retry/protocol/1 protocol/protocol/1 protocol/protocol/1 cancel/protocol/1
"""
NOT_APPLICABLE = {
    "throttle": "nothing of a cancelled task can be throttled",
    "fail": "a cancelled task ends, and cannot fail",
    "invalid-action": "only a run-task is refused so, and there is none any more",
    "early-audio": "task-started has come, so audio is not early",
}
OUTCOMES = {
    "ok": "completed",
    "retry": "completed, 1 retry",
    "cancel": "cancelled",
    "down": "failed: EndpointDown",
    "lost": "failed: ConnectionLost",
    "late": "failed: FirstAudioTimeout",
    "refused": "failed: TaskFailed",
    "protocol": "failed: ProtocolViolation",
}
FATES = {
    "kept": ("kept",),
    "undialled": ("dial failed",),
    "lost": ("closed (lost)",),
    "broke": ("closed (ConnectionLost)",),
    "late": ("closed (FirstAudioTimeout)",),
    "unconfirmed": ("closed (cancel not confirmed)",),
    "failed": ("closed (Throttling.RateQuota)", "closed (InternalError)", "closed (InvalidParameter)"),
    "stray": ("closed (stray frames)",),
    "protocol": ("closed (ProtocolViolation)",),
}


def expected():
    """Every cell, in order: (kind, phase) and what it has to show, or None where it does not apply."""
    cells = {}
    for line in TABLE.strip().splitlines():
        kind, *row = line[:16].strip(), *line[16:].split()
        for phase, cell in zip(PHASES, row, strict=True):
            cells[kind, phase] = None if cell == "-" else tuple(cell.split("/"))
    return cells


def shown(kind, cell):
    """A cell as the page shows it."""
    if cell is None:
        return f"not applicable: {NOT_APPLICABLE[kind]}"
    outcome, fate, handshakes = cell
    fates = {
        "failed": "closed",
        "stray": "closed",
        "protocol": "closed",
        "late": "closed",
        "lost": "closed",
        "broke": "closed",
    }
    return f"{OUTCOMES[outcome]}; {fates.get(fate, FATES[fate][0])}; {handshakes}"
