"""A pool of connections: a pure core that decides, and an asyncio engine that does.

It knows nothing about speech or WebSockets. It pools what a `Connector` opens.
"""

from .connector import Connector
from .lease import UNSET, Lease, Unset
from .pool import Pool
from .stats import PoolStats

__all__ = ["UNSET", "Connector", "Lease", "Pool", "PoolStats", "Unset"]
