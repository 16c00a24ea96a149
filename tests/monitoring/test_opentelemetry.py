"""OpenTelemetry by its own SDK: spans with phases, and metrics that are those of the report."""

import asyncio
import itertools

import pytest
from monitored import KEY, PCM, SECRET, pool_with_traffic
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from speechpool.errors import SpeechPoolError
from speechpool.monitoring.opentelemetry import instrument
from speechpool.telemetry import current_trace_id


@pytest.fixture
def sdk():
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    metering = MeterProvider([reader])
    yield tracing, metering, exporter, reader
    tracing.shutdown()
    metering.shutdown()


def points(reader):
    data = reader.get_metrics_data()
    return {
        metric.name: metric.data.data_points
        for one in data.resource_metrics
        for scope in one.scope_metrics
        for metric in scope.metrics
    }


def test_a_span_for_each_task_below_that_of_the_caller(sdk):
    tracing, metering, exporter, _ = sdk

    async def main():
        async with pool_with_traffic(0, ["fail@starting"], retry=0) as pool:
            instrument(pool, tracer_provider=tracing, meter_provider=metering)
            with tracing.get_tracer("caller").start_as_current_span("answer") as own:
                assert current_trace_id() == f"{own.get_span_context().trace_id:032x}"
                with pytest.raises(SpeechPoolError):
                    await pool.synthesize(SECRET, PCM)
        async with pool_with_traffic(0, ()) as pool:
            remove = instrument(pool, tracer_provider=tracing, meter_provider=metering, genai=True)
            with tracing.get_tracer("caller").start_as_current_span("answer") as own:
                await pool.synthesize(SECRET, PCM)
            remove()
            await pool.synthesize(SECRET, PCM)
            return own.get_span_context()

    context = asyncio.run(main())
    spans = exporter.get_finished_spans()
    failed, speech = [span for span in spans if span.name == "speech"]
    assert failed.status.status_code.name == "ERROR"
    assert failed.attributes["error.type"] == "InternalError"
    assert "gen_ai.output.type" not in failed.attributes
    assert speech.attributes["gen_ai.output.type"] == "speech"
    assert (speech.parent.span_id, speech.context.trace_id) == (context.span_id, context.trace_id)
    phases = [span for span in spans if span.parent and span.parent.span_id == speech.context.span_id]
    assert {"start", "synthesis", "rest"} <= {span.name for span in phases}
    assert phases[0].start_time >= speech.start_time
    assert phases[-1].end_time == speech.end_time
    for before, after in itertools.pairwise(phases):
        assert before.end_time == after.start_time
    assert "giraffe" not in repr([span.attributes for span in spans])
    assert KEY not in repr([span.attributes for span in spans])


def test_the_metrics_are_those_of_the_report(sdk):
    tracing, metering, _, reader = sdk

    async def main():
        async with pool_with_traffic(0, ()) as pool:
            instrument(pool, tracer_provider=tracing, meter_provider=metering, genai=True)
            await asyncio.gather(*(pool.synthesize(SECRET, PCM) for _ in range(7)))
            found = await asyncio.to_thread(points, reader)
            outcomes = {point.attributes["speechpool.outcome"]: point.value for point in found["speechpool.tasks"]}
            assert outcomes == {"completed": 7, "failed": 0, "cancelled": 0, "shed": 0}
            states = {
                point.attributes["speechpool.state"]: point.value for point in found["speechpool.pool.connections"]
            }
            assert states["idle"] == pool.stats.idle
            assert [point.count for point in found["speechpool.first_packet_delay"]] == [7]
            assert [point.count for point in found["speechpool.end_to_end"]] == [7]
            assert [point.count for point in found["gen_ai.client.operation.duration"]] == [7]
            assert {name for name in found if not name.startswith(("speechpool.", "gen_ai."))} == set()

    asyncio.run(main())
