"""Importing the floor costs little: picows and what it needs come with the first connection."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_the_vocabulary_imports_no_picows():
    code = (
        "import sys, speechpool.transport as t; t.Heartbeat, t.Closed, t.Request, t.Refusal, t.Accepted; "
        "heavy = {'picows', 'aiofastnet', 'uvloop', 'asyncio', 'ssl'} & set(sys.modules); assert not heavy, heavy; "
        "t.connect, t.serve, t.Listener; assert 'picows' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_are_errors():
    from speechpool import transport

    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = transport.nothing_like_this
    assert all(hasattr(transport, name) for name in transport.__all__)
