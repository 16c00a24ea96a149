"""See what pools do: the live page, Prometheus, JSON logs. Needs the extra `[monitoring]`.

from speechpool import monitoring

with monitoring.serve(pool) as monitor:
    print(monitor.url)
"""

from speechpool.errors import SettingsError

try:
    from .serving import PORT, Monitor, asgi, serve
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"prometheus_client", "starlette", "uvicorn"}:
        raise
    raise SettingsError(
        f"monitoring needs {error.name}, which is not installed; install it with: pip install 'speechpool[monitoring]'"
    ) from error
from .logs import JsonFormatter
from .prometheus import SpeechCollector
from .snapshot import Snapshot, Source

__all__ = ["PORT", "JsonFormatter", "Monitor", "Snapshot", "Source", "SpeechCollector", "asgi", "serve"]
