"""The pages, metrics and snapshots over HTTP: the numbers are those of the pool, and only who may ask gets them."""

import asyncio
import http.client
import json
import logging
import math
import threading
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI
from monitored import KEY, PCM, SECRET, ask, get, names_of_threads, parsed, pool_with_traffic, running_service, traffic
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from speechpool import AsyncSpeechPool, Endpoint, SpeechPool, monitoring
from speechpool.errors import PoolClosed, SettingsError
from speechpool.limits import LocalQuota
from speechpool.monitoring.catalogue import METRICS
from speechpool.monitoring.feed import Feed
from speechpool.monitoring.prometheus import taken
from speechpool.monitoring.serving import listen, site
from speechpool.monitoring.snapshot import Source
from speechpool.telemetry import trace_id


def samples(text, parse=text_string_to_metric_families):
    return {
        (sample.name, *sorted(sample.labels.items())): sample for family in parse(text) for sample in family.samples
    }


def value(found, name, **labels):
    return found[name, *sorted({"pool": "default", **labels}.items())].value


def test_the_metrics_are_the_numbers_of_the_pool():
    async def main():
        async with pool_with_traffic() as pool:
            with monitoring.serve(pool, 0) as monitor:
                _, headers, text = await ask(f"{monitor.url}metrics")
            assert headers["Content-Type"].startswith("text/plain")
            found, report, stats = samples(text), pool.report().lifetime, pool.stats
            for outcome in ("completed", "failed", "cancelled", "shed"):
                assert value(found, "speechpool_tasks_total", outcome=outcome) == getattr(report.error_rate, outcome)
            assert report.error_rate.failed > 0
            assert value(found, "speechpool_task_errors_total", error="InternalError") == report.error_rate.failed
            for state in ("idle", "borrowed", "opening", "closing"):
                assert value(found, "speechpool_pool_connections", state=state) == getattr(stats, state)
            assert value(found, "speechpool_pool_borrows_total", result="reused") == stats.reused
            assert (
                value(found, "speechpool_pool_closed_total", reason="InternalError") == stats.discarded["InternalError"]
            )
            assert value(found, "speechpool_pool_wait_seconds_count") == stats.borrows
            assert value(found, "speechpool_pool_use_seconds_count") == stats.returned
            assert value(found, "speechpool_pool_dial_seconds_count") == stats.opened
            assert value(found, "speechpool_pool_borrows_per_connection_count") == stats.closed
            delay = report.first_packet_delay
            assert value(found, "speechpool_first_packet_delay_seconds_count") == delay.tasks
            parts = [
                value(found, "speechpool_first_packet_stage_seconds_sum", stage=part)
                for part in ("queue", "connect", "start", "synthesis")
            ]
            assert sum(parts) == pytest.approx(delay.mean * delay.tasks)
            for q, quantile in ((0.5, delay.p50), (0.99, delay.p99)):
                assert bucket_of(found, q) == edge_of(found, quantile)

    asyncio.run(main())


def edges(found):
    return sorted(
        (float(dict(key[1:])["le"]), sample.value)
        for key, sample in found.items()
        if key[0] == "speechpool_first_packet_delay_seconds_bucket"
    )


def bucket_of(found, q):
    rows = edges(found)
    return next(edge for edge, count in rows if count >= math.ceil(q * rows[-1][1]))


def edge_of(found, quantile):
    return next(edge for edge, _ in edges(found) if edge >= quantile)


def test_every_metric_has_samples_after_traffic():
    async def main():
        async with pool_with_traffic(60, ["fail@mid-audio~10%", "drop@started~10%"]) as pool:
            snapshot = Source(pool).take()
            assert [metric.name for metric in METRICS if not list(metric.read(snapshot))] == [
                "speechpool_quota_rate",
                "speechpool_quota_limit",
            ]
        async with pool_with_traffic(1, (), quota=LocalQuota(50.0)) as pool:
            snapshot = Source(pool).take()
            assert all(
                list(metric.read(snapshot))
                for metric in METRICS
                if metric.name in {"speechpool_quota_rate", "speechpool_quota_limit"}
            )

    asyncio.run(main())


def test_exemplars_show_the_trace_of_a_task():
    async def main():
        async with pool_with_traffic(0) as pool:
            trace_id.set("4bf92f3577b34da6a3ce929d0e0e4736")
            await pool.synthesize(SECRET, PCM)
            with monitoring.serve(pool, 0) as monitor:
                _, headers, text = await ask(
                    f"{monitor.url}metrics", Accept="application/openmetrics-text; version=1.0.0"
                )
                (pool_now,) = parsed((await ask(f"{monitor.url}snapshot.json"))[2])
            assert headers["Content-Type"].startswith("application/openmetrics-text")
            seen = [sample.exemplar for sample in samples(text, open_metrics).values() if sample.exemplar]
            assert [one.labels for one in seen] == [{"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}]
            assert pool_now["slowest"][0]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"

    asyncio.run(main())


def test_snapshots_rise_and_can_be_asked_for_again():
    async def main():
        async with pool_with_traffic() as pool:
            with monitoring.serve(pool, 0) as monitor:
                (first,), (second,) = [parsed((await ask(f"{monitor.url}snapshot.json"))[2]) for _ in range(2)]
                (again,) = parsed((await ask(f"{monitor.url}snapshot.json?seq={first['seq']}"))[2])
                nothing = parsed((await ask(f"{monitor.url}snapshot.json?seq=99999"))[2])
            assert second["seq"] > first["seq"]
            assert again == first
            assert nothing == []
            assert first["version"] == 1
            assert first["stats"]["borrows"] == pool.stats.borrows
            assert first["values"]["connection reuse"][0] == pool.report().window.connection_reuse.value
            assert len(first["slowest"]) == 10
            phases = ("text_wait", "queue", "connect", "start", "synthesis", "rest")
            for task in first["slowest"]:
                assert sum(task[phase] for phase in phases) == pytest.approx(task["seconds"])

    asyncio.run(main())


def test_events_come_to_several_who_watch_and_end_with_the_monitor():
    def watch(url):
        where = urlsplit(url)
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=10)
        connection.request("GET", "/events")
        return connection, connection.getresponse()

    def event(answer):
        line = answer.readline().decode()
        assert answer.readline() == b"\n"
        return json.loads(line.removeprefix("data: "))["pools"]

    async def main():
        async with pool_with_traffic(3, ()) as pool:
            monitor = monitoring.serve(pool, 0)
            watchers = [await asyncio.to_thread(watch, monitor.url) for _ in range(2)]
            seen = [[await asyncio.to_thread(event, answer) for _ in range(2)] for _, answer in watchers]
            for (first,), (second,) in seen:
                assert first["seq"] < second["seq"]
            await asyncio.to_thread(monitor.close)
            for connection, answer in watchers:
                await asyncio.to_thread(answer.read)
                connection.close()
            monitor.close()
        assert "speechpool-monitor" not in names_of_threads()

    asyncio.run(main())


@pytest.mark.parametrize("path", ["metrics", "snapshot.json"])
def test_closing_on_the_loop_of_the_pool_waits_for_no_answer_of_that_loop(path):
    asked, refused = threading.Event(), []

    class Noted(Source):
        def take(self):
            asked.set()
            try:
                return super().take()
            except PoolClosed as error:
                refused.append(error)
                raise

    async def main():
        async with pool_with_traffic(1, ()) as pool:
            source = Noted(pool)
            app, feed = site(lambda: [one.to_dict() for one in taken([source])], [source])
            monitor = listen(app, feed, 0, "127.0.0.1", token=None)
            answer = asyncio.get_running_loop().run_in_executor(None, get, monitor.url + path)
            assert asked.wait(10)  # the loop stands still from here on, and somebody waits for it
            monitor.close()
            assert len(refused) == 1
            await asyncio.gather(answer, return_exceptions=True)

    asyncio.run(main())


def test_several_pools_have_a_name_each():
    async def main():
        async with running_service() as service:
            endpoint = Endpoint(service.url, api_key=KEY)
            async with AsyncSpeechPool(endpoint, name="a") as a, AsyncSpeechPool(endpoint, name="b") as b:
                await traffic(b, 3)
                with monitoring.serve([a, b], 0) as monitor:
                    found = samples((await ask(f"{monitor.url}metrics"))[2])
                assert value(found, "speechpool_tasks_total", pool="b", outcome="completed") == 3
                assert value(found, "speechpool_tasks_total", pool="a", outcome="completed") == 0
            async with AsyncSpeechPool(endpoint) as one, AsyncSpeechPool(endpoint) as two:
                with pytest.raises(SettingsError, match="two pools are named 'default'"):
                    monitoring.serve([one, two], 0)

    asyncio.run(main())


@pytest.mark.keeps_descriptors
def test_a_pool_for_threads_is_monitored_from_its_threads():
    async def serve_and_wait():
        async with running_service() as service:
            await asyncio.to_thread(threaded, service.url)

    def threaded(url):
        with SpeechPool(Endpoint(url, api_key=KEY)) as pool:
            pool.synthesize(SECRET, PCM)
            with monitoring.serve(pool, 0) as monitor:
                found = samples(get(f"{monitor.url}metrics")[2])
            assert value(found, "speechpool_tasks_total", outcome="completed") == 1

    asyncio.run(serve_and_wait())


def test_mounted_into_an_application():
    async def main():
        async with pool_with_traffic(2, ()) as pool:
            app = FastAPI()
            app.mount("/speech", monitoring.asgi(pool))
            with listen(app, Feed(list), 0, "127.0.0.1", token=None) as server:
                _, _, page = await ask(f"{server.url}speech/")
                status, _, _ = await ask(f"{server.url}speech/page/page.js")
                _, _, metrics = await ask(f"{server.url}speech/metrics")
            assert 'href="page/page.css"' in page
            assert status == 200
            assert value(samples(metrics), "speechpool_tasks_total", outcome="completed") == 2

    asyncio.run(main())


# ------------------------------------------------------------------------------------------ who may ask
def test_who_may_ask():
    async def main():
        async with pool_with_traffic(0, ()) as pool:
            with monitoring.serve(pool, 0) as monitor:
                for path in ("", "metrics", "snapshot.json", "events", "page/page.js"):
                    assert (await ask(monitor.url + path, Host="evil.example:80"))[0] == 403
                assert (await ask(monitor.url, Host="localhost:1"))[0] == 200
                assert (await ask(monitor.url, Host="[::1]:1"))[0] == 200
                _, headers, _ = await ask(monitor.url)
                assert "default-src 'none'" in headers["Content-Security-Policy"]
                assert (await ask(f"{monitor.url}page/../serving.py"))[0] == 404
            with monitoring.serve(pool, 0, token="a b&c") as monitor:
                base = monitor.url.partition("?")[0]
                assert (await ask(monitor.url, Host="evil.example"))[0] == 200
                assert (await ask(f"{base}metrics"))[0] == 401
                assert (await ask(f"{base}metrics?token=wrong"))[0] == 401
                assert (await ask(f"{base}metrics", Authorization="Bearer a b&c"))[0] == 200
                assert (await ask(f"{base}page/page.js"))[0] == 200
                assert (await ask(f"{base}healthz"))[0] == 200
            with monitoring.serve(pool, 0, token="read from a file\n") as monitor:
                base = monitor.url.partition("?")[0]
                assert (await ask(f"{base}metrics", Authorization="Bearer read from a file"))[0] == 200
            for empty in ("", " \n"):  # what an environment variable gives that somebody forgot to set
                with pytest.raises(SettingsError, match="the token of monitoring is empty"):
                    monitoring.serve(pool, 0, "0.0.0.0", token=empty)
                with pytest.raises(SettingsError, match="the token of monitoring is empty"):
                    monitoring.asgi(pool, token=empty)
            with pytest.raises(SettingsError, match="needs a token"):
                monitoring.serve(pool, 0, "0.0.0.0")
            with monitoring.serve(pool, 0) as monitor, pytest.raises(SettingsError, match="take another port, or 0"):
                monitoring.serve(pool, urlsplit(monitor.url).port)
        with pytest.raises(PoolClosed):
            monitoring.serve(AsyncSpeechPool(Endpoint("ws://127.0.0.1:1", api_key=KEY)), 0)

    asyncio.run(main())


def test_a_pool_whose_loop_has_ended_is_left_out():
    async def main():
        async with pool_with_traffic(1, ()) as pool:
            return monitoring.serve(pool, 0)

    with asyncio.run(main()) as monitor:
        assert get(f"{monitor.url}metrics")[0] == 200
        assert parsed(get(f"{monitor.url}snapshot.json")[2]) == []


# ------------------------------------------------------------------------------------------ no key, no text
def test_no_key_and_no_text_anywhere(caplog):
    caplog.set_level(logging.DEBUG)

    async def main():
        async with pool_with_traffic(30, ["fail@mid-audio~10%", "drop@started~10%", "refuse:401~20%"]) as pool:
            with monitoring.serve(pool, 0) as monitor:
                paths = ("metrics", "snapshot.json", "", "page/page.js")
                return [(await ask(monitor.url + path))[2] for path in paths] + [str(pool.report()), pool.explain()]

    shown = "".join(asyncio.run(main())) + "".join(
        record.getMessage() for record in caplog.records if record.levelno >= logging.INFO
    )
    assert "speechpool_tasks_total" in shown
    assert KEY not in shown
    assert KEY not in caplog.text
    assert "giraffe" not in shown


def test_json_logs_have_a_line_for_each_task(caplog):
    caplog.set_level(logging.INFO, logger="speechpool.synthesis")

    async def main():
        async with pool_with_traffic(5, ()):
            pass

    asyncio.run(main())
    form = monitoring.JsonFormatter()
    lines = [json.loads(form.format(record)) for record in caplog.records if hasattr(record, "speechpool")]
    assert len(lines) == 5
    for line in lines:
        assert line["outcome"] == "completed"
        assert line["level"] == "info"
        assert line["first_packet_delay"] <= line["end_to_end"]
        assert {"pool", "request_id", "trace_id", "audio_bytes", "retries", "error", "time", "logger"} <= line.keys()
