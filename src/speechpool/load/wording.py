"""Numbers as the page shows them, in tables and pictures alike."""

from __future__ import annotations

__all__ = ["number", "seconds"]


def number(value: float | None) -> str:
    """Return a number with four digits that count; whole ones as they are."""
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def seconds(value: float | None) -> str:
    """Return seconds, in milliseconds."""
    return "-" if value is None else f"{1000 * value:.1f} ms"
