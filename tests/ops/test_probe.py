"""A look at a real TLS endpoint: its steps, its certificate, its clock; and each way in which it cannot be had."""

import asyncio
import datetime as dt
import socket
import ssl
import time

import pytest
import trustme

from speechpool.errors import ConnectFailed, SettingsError, Unauthorized
from speechpool.ops.evidence import Configured, Evidence, Plan
from speechpool.ops.judge import judged
from speechpool.ops.probe import Probe, probe
from speechpool.service import LocalBackend, ServiceSettings, SpeechService
from speechpool.synthesis import Endpoint

KEY = "sk-right"
AUTHORITY = trustme.CA()
TRUSTING = ssl.create_default_context()
AUTHORITY.configure_trust(TRUSTING)


def served(**certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost", **certificate).configure_cert(context)
    return context


def probed(*, tls=None, key=KEY, trust=TRUSTING, settings=None, **options):
    async def main():
        async with SpeechService(
            LocalBackend("marker"), port=0, api_key=KEY, ssl=tls, settings=settings or ServiceSettings()
        ) as service:
            scheme = "ws" if tls is None else "wss"
            endpoint = Endpoint(f"{scheme}://localhost:{service.port}", api_key=key, ssl=trust if tls else None)
            return await probe(endpoint, **options)

    return asyncio.run(main())


def items(seen):
    evidence = Evidence(configured=Configured(), plan=Plan(), probe=seen)
    return {item.name: item for item in judged(evidence).items}


def said(seen, name):
    return " ".join(one.evidence for one in items(seen)[name].findings)


def test_tls_in_order():
    seen = probed(tls=served())
    assert seen.error is None
    assert seen.tls_version == "TLSv1.3"
    assert "127.0.0.1" in seen.addresses
    assert all(seconds is not None and seconds > 0 for seconds in (seen.handshake, seen.connect, seen.tls))
    assert abs(seen.skew) < 2
    assert seen.certificate_days > 1000
    assert {items(seen)[name].verdict for name in ("region", "clock")} == {"pass"}


def test_a_clock_that_is_wrong():
    for seconds, verdict, side in ((-120, "fail", "behind"), (120, "fail", "ahead of"), (20, "warn", "ahead of")):
        seen = probed(clock=lambda seconds=seconds: time.time() + seconds)
        assert seen.skew == pytest.approx(-seconds, abs=2)
        assert items(seen)["clock"].verdict == verdict
        assert side in said(seen, "clock")


def test_a_certificate_that_ends_soon_or_has_ended():
    now = dt.datetime.now(dt.UTC)
    seen = probed(tls=served(not_after=now + dt.timedelta(days=3)))
    assert items(seen)["region"].verdict == "warn"
    assert "ends in 3.0 days" in said(seen, "region")
    ended = probed(tls=served(not_after=now - dt.timedelta(days=3)))
    assert "has expired" in said(ended, "region")
    assert items(ended)["region"].verdict == "fail"


def test_a_wrong_key_is_refused_and_the_clock_is_compared_all_the_same():
    seen = probed(tls=served(), key="sk-wrong")
    assert isinstance(seen.error, Unauthorized)
    assert seen.handshake is None
    assert (items(seen)["region"].verdict, items(seen)["clock"].verdict) == ("fail", "pass")
    assert items(seen)["idle"].verdict == "not checked"
    assert "sk-wrong" not in repr(seen)


def test_who_is_not_trusted_and_who_is_not_there():
    assert "authority is unknown" in said(probed(tls=served(), trust=None), "region")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    gone = asyncio.run(probe(Endpoint(f"ws://127.0.0.1:{port}", api_key=KEY)))
    assert isinstance(gone.error, ConnectFailed)
    assert "Is the service running" in said(gone, "region")
    assert items(gone)["clock"].verdict == "not checked"


def test_a_key_without_tls_on_another_machine_fails():
    seen = Probe(endpoint="speech.example/", host="speech.example", secure=False, direct=True, handshake=0.05)
    assert items(seen)["region"].verdict == "fail"
    assert "without TLS" in said(seen, "region")


def test_an_endpoint_far_away_is_a_warning():
    seen = Probe(endpoint="a.example/", host="a.example", secure=True, direct=True, handshake=0.9, connect=0.21)
    assert items(seen)["region"].verdict == "warn"
    assert "210.0 ms" in said(seen, "region")


def test_a_key_function_that_gives_none_is_an_error_and_no_crash():
    seen = probed(key=lambda: "")
    assert isinstance(seen.error, SettingsError)


def test_an_idle_connection_is_watched():
    short = ServiceSettings(idle_timeout=0.2)
    closed = probed(settings=short, watch=20.0)
    assert 0.1 < closed.closed_after < 10
    assert items(closed)["idle"].verdict == "fail"
    kept = probed(watch=0.1)
    assert (kept.closed_after, kept.watched >= 0.1) == (None, True)


def test_a_proxy_hides_the_steps_but_not_the_dial():
    seen = Probe(endpoint="a.example/", host="a.example", secure=True, direct=False, handshake=0.1)
    assert items(seen)["region"].verdict == "pass"
    assert "proxy is in between" in said(seen, "clock")


def test_who_answers_no_date_leaves_the_clock_unchecked():
    seen = Probe(endpoint="a.example/", host="a.example", secure=True, direct=True, handshake=0.1)
    assert items(seen)["clock"].verdict == "not checked"
    assert "told no date" in said(seen, "clock")
