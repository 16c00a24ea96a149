"""What reaches the log: our own words, and those of picows and aiofastnet only where somebody debugs."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

__all__ = ["PICOWS_LOG", "logger"]

logger = logging.getLogger("speechpool.transport")


class _PicowsLog(logging.LoggerAdapter[logging.Logger]):
    """Everything that picows has to say, at debug level.

    It reports garbage from strangers as errors, with tracebacks, and below debug it prints the request with the key.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # a name of the logging module
        return level >= logging.DEBUG and self.logger.isEnabledFor(logging.DEBUG)

    def log(self, level: int, msg: object, *args: object, **_kwargs: Any) -> None:
        if self.isEnabledFor(level):
            self.logger.debug("picows: %s", msg % args if args and isinstance(msg, str) else msg)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


PICOWS_LOG = _PicowsLog(logger, {})


def _readable(record: logging.LogRecord) -> bool:
    """Let every record of the event loop pass but one that no handler can format.

    Where a peer hangs up during the TLS handshake (each health check of a load balancer does), aiofastnet 1.2 hands
    the loop an exception *class*, and logging answers with a traceback of its own on stderr. Our dial reports that
    failure anyway, and a server has nothing to say about it.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], type))


logging.getLogger("asyncio").addFilter(_readable)
