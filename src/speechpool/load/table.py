"""Every task as a line of a table, for programs that read CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Final

from .record import Record

__all__ = ["COLUMNS", "table"]

COLUMNS: Final = tuple(each.name for each in fields(Record))


def table(records: Sequence[Record]) -> str:
    """Return the table, with its heads; what is not known is empty."""
    written = io.StringIO()
    rows = csv.DictWriter(written, COLUMNS, lineterminator="\n")
    rows.writeheader()
    rows.writerows(asdict(record) for record in records)
    return written.getvalue()
