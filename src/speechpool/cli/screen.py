"""What `speechpool demo` shows of its course."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .signals import remarks, signals_table

if TYPE_CHECKING:
    from speechpool.telemetry import Report

    from .demo import File
    from .rehearsal import Pace, Plan

__all__ = ["Screen"]

_WIDTH: Final = 120
"""Columns where the output is no terminal."""
_SNIPPET: Final = """\
from speechpool import Endpoint, SpeechPool, Voice

with SpeechPool(Endpoint.local()) as pool:
    speech = pool.synthesize("Hello.", Voice("cosyvoice-v3-flash", "longanyang"))
    speech.save("hello.mp3")
    print(pool.report())"""


class Screen:
    """Standard output, for people.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(quiet=quiet, markup=False, highlight=False)
        if not self._console.is_terminal:
            self._console.width = _WIDTH
        self._live = self._console.is_terminal and not quiet

    def _say(self, text: str = "") -> None:
        self._console.print(text, soft_wrap=True)

    def busy(self, text: str) -> AbstractContextManager[object]:
        """Show on a terminal that something goes on, for as long as the context lasts."""
        return self._console.status(text)

    def service(self, url: str, engine: str) -> None:
        """Say that the service runs."""
        self._say(f"A speech service runs on {url} (engine {engine}), until this command ends.")

    def files(self, files: Sequence[File]) -> None:
        """Say what was written."""
        self._say("\nThree sentences at once, over a pool of three warm connections:\n")
        for file in files:
            delay = f"{file.first_packet_delay * 1000:.0f} ms"
            self._say(f'  {file.path}  "{file.text}"  {file.seconds:.1f} s, first audio after {delay}')

    def plan(self, pace: Pace, plan: Plan) -> None:
        """Say what comes."""
        what = "sentences" if plan.sentences == 1 else f"texts of {plan.sentences} sentences"
        duration = pace.duration * plan.sentences
        self._say(
            f"\n{len(plan.arrivals)} more {what} as a Poisson stream: {_short(plan.rate)} a second, half of what the "
            f"service manages.\nEach takes {_short(duration)} s: {_short(plan.expected)} are expected at once, and the "
            f"pool gets {plan.max_size} connections (1.6 x, at least 2).\n"
        )

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[], None]]:
        """Show a bar on a terminal; yields what counts one task as done."""
        columns = (TextColumn("speaking"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self._live) as bar:
            task = bar.add_task("speaking", total=total)
            yield lambda: bar.advance(task)

    def signals(self, report: Report) -> None:
        """Show the five signals, and why one is not met."""
        signals = report.lifetime
        self._say(f"The five signals, over all {signals.tasks} tasks of the pool:\n")
        self._console.print(signals_table(signals))
        self._say()
        for remark in remarks(signals):
            self._say(f"  {remark}")

    def next_steps(self, directory: Path) -> None:
        """Say what to try next."""
        self._say(f"\nListen: the audio is in {directory}/. Next:\n")
        self._say('  speechpool say "Hello." -o hello.mp3      one text, also from standard input')
        self._say("  speechpool service                        keep a service running; then, in Python:\n")
        self._say("\n".join(f"    {line}".rstrip() for line in _SNIPPET.splitlines()))


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"
