"""Every fault at every phase: one clear outcome, as written down before (matrix_expected.py), and the page that says so."""

import asyncio
import os
from pathlib import Path

import pytest
from matrix_cell import ASKED, PHASES, every_fault, run_all
from matrix_expected import FATES, OUTCOMES, expected, shown

from speechpool.pool import pace

PAGE = Path(__file__).parents[2] / "docs/reliability.md"
BEGIN, END = "<!-- the matrix: written by `make matrix` -->\n", "<!-- end of the matrix -->"
CELLS = expected()


@pytest.fixture(scope="module")
def seen():
    """All cells, run at once: they wait most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "SHORT_LIFE", 0.1)  # as much shorter as the deadlines
        return asyncio.run(run_all([cell for cell, wanted in CELLS.items() if wanted]))


def test_the_table_has_every_fault_and_every_phase():
    assert list(ASKED) == every_fault()
    assert list(CELLS) == [(kind, phase) for kind in every_fault() for phase in PHASES]
    assert 10 * sum(cell is None for cell in CELLS.values()) <= len(CELLS)


@pytest.mark.parametrize(("kind", "phase"), [cell for cell, wanted in CELLS.items() if wanted])
def test_matrix(seen, kind, phase):
    outcome, fate, handshakes = CELLS[kind, phase]
    cell = seen[kind, phase]
    assert cell.problems == []
    assert (cell.outcome, cell.handshakes) == (OUTCOMES[outcome], int(handshakes))
    assert cell.fate in FATES[fate]


def rendered():
    lines = [f"| fault | {' | '.join(PHASES)} |", "|---" * (1 + len(PHASES)) + "|"]
    for kind in ASKED:
        row = [shown(kind, CELLS[kind, phase]) for phase in PHASES]
        lines.append(f"| `{kind.removeprefix('proxy ')}`{' (proxy)' * kind.startswith('proxy ')} | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def test_the_page_shows_the_matrix(seen):
    before, _, rest = PAGE.read_text().partition(BEGIN)
    table, _, after = rest.partition(END)
    if os.environ.get("SPEECHPOOL_WRITE_MATRIX"):
        for cell in CELLS.items():
            assert cell[1] is None or not seen[cell[0]].problems
        PAGE.write_text(before + BEGIN + rendered() + END + after)
    else:
        assert table == rendered(), "run `make matrix`"
