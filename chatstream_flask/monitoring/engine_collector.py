"""The engine's numbers as Prometheus metrics, with vLLM's names after `chatstream_`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from ..engine.engine import Engine
from ..engine.histogram import Histogram
from ..engine.request import FinishReason
from ..engine.worker_stats import WorkerStats
from .health import is_ready

PREFIX = "chatstream_"
REFUSALS = (  # shown from the start, others once they occur
    *("queue_full", "visitor_running", "visitor_waiting", "visitor_tokens"),
    *("not_accepting", "engine_broken"),
)
PHASES = ("waiting", "prefill", "decode")
FAULTS = ("hung", "died")


def make_registry(engine: Engine) -> CollectorRegistry:
    """One of its own, with the memory, files and CPU time of the process besides."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(engine))
    ProcessCollector(registry=registry)
    return registry


class EngineCollector(Collector):
    """Reads the engine when it is scraped; keeps nothing itself, so any number of them may exist."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        steps = self._engine.stats.steps
        yield from self._gauges()
        yield from self._counters(steps)
        yield from self._histograms(steps)

    def _gauges(self) -> Iterable[Metric]:
        engine, config = self._engine, self._engine.config
        yield _gauge("num_requests_running", "Replies being generated", engine.num_running)
        yield _gauge("num_requests_waiting", "Requests in the queue", engine.num_waiting)
        yield _gauge("max_requests_running", "Replies generated at once", config.num_of_concurrent_executions)
        yield _gauge("max_requests_waiting", "Places in the queue", config.max_queue_size)
        yield _gauge("kv_cache_usage_perc", "Share of the KV cache in use; 1 is all", engine.kv_usage)
        yield _gauge("ready", "1 if /health/ready answers 200, else 0", is_ready(engine))

    def _counters(self, steps: WorkerStats) -> Iterable[Metric]:
        stats = self._engine.stats
        finished, aborted = stats.num_finished, stats.num_aborted
        yield _counter("prompt_tokens", "Prompt tokens computed", steps.num_prefilled)
        yield _counter("generation_tokens", "Tokens generated", steps.num_generated)
        yield _counter(
            "prefix_cache_queries",
            "Prompt tokens of requests that got a slot",
            steps.num_prefilled + steps.num_reused,
        )
        yield _counter(
            "prefix_cache_hits",
            "Prompt tokens whose keys and values were still there",
            steps.num_reused,
        )
        yield _counter("spec_decode_num_draft_tokens", "Tokens proposed by speculation", steps.num_drafted)
        yield _counter("spec_decode_num_accepted_tokens", "Of these, the right ones", steps.num_accepted)
        success = {r.value: finished.get(r, 0) for r in (FinishReason.STOP, FinishReason.LENGTH)}
        yield _counters("request_success", "Replies that ended as they should", "finished_reason", success)
        yield _counter("request_error", "Replies that failed", finished.get(FinishReason.ERROR, 0))
        yield _counters(
            "request_aborted",
            "Replies cancelled, out of time, or left by their client, by how far they had come",
            "phase",
            dict.fromkeys(PHASES, 0) | aborted,
        )
        yield _counters(
            "admission_rejections",
            "Requests that got no place",
            "reason",
            dict.fromkeys(REFUSALS, 0) | stats.num_refused,
        )
        yield _counters(
            "generation_thread_replacements",
            "Generation threads replaced",
            "reason",
            dict.fromkeys(FAULTS, 0) | stats.num_replaced,
        )

    def _histograms(self, steps: WorkerStats) -> Iterable[Metric]:
        stats = self._engine.stats
        yield _histogram("request_queue_time_seconds", "Arrival to a slot", steps.queue_sec)
        yield _histogram("time_to_first_token_seconds", "Arrival to the first token", steps.first_token_sec)
        yield _histogram("inter_token_latency_seconds", "Between two tokens of a reply", steps.gap_sec)
        yield _histogram("step_time_seconds", "A step of a generation thread", steps.step_sec)
        yield _histogram("e2e_request_latency_seconds", "Arrival to the end", stats.total_sec)
        yield _histogram("request_prefill_time_seconds", "A slot to the first token", stats.prefill_sec)
        yield _histogram("request_decode_time_seconds", "First token to the end", stats.decode_sec)
        yield _histogram(
            "request_time_per_output_token_seconds",
            "Mean time of a reply's tokens after its first",
            stats.sec_per_token,
        )
        yield _histogram("request_prompt_tokens", "Prompt tokens of a request", stats.prompt_tokens)
        yield _histogram("request_generation_tokens", "Tokens of a reply", stats.generation_tokens)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _counters(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    bounds = [*(f"{float(bound)}" for bound in histogram.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
    return HistogramMetricFamily(PREFIX + name, text, buckets=buckets, sum_value=histogram.total)
