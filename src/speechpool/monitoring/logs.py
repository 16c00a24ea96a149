"""Logs as JSON lines, for machines: the standard library's records, with what a task is known by."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

__all__ = ["JsonFormatter"]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the fields of a record's `speechpool`.

    The line of a task has `pool`, `outcome`, `request_id`, `trace_id`, `first_packet_delay`, `end_to_end`,
    `audio_bytes`, `retries` and `error`; never its text, never a key.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "speechpool", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
