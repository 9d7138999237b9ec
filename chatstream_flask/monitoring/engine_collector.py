"""Prometheus metrics of the engine, named as vLLM's after the prefix `chatstream_`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from ..engine.engine import Engine
from ..engine.histogram import Histogram
from ..engine.outcome import FinishReason
from ..engine.worker_stats import WorkerStats
from .health import is_ready

PREFIX = "chatstream_"
REFUSALS = (  # exported as 0 from the start; other reasons appear when they first occur
    *("queue_full", "visitor_running", "visitor_waiting", "visitor_tokens"),
    *("not_accepting", "engine_failing", "engine_broken"),
)
PHASES = ("waiting", "prefill", "decode")
FAULTS = ("hung", "died", "failing")


def make_registry(engine: Engine) -> CollectorRegistry:
    """Return a new registry with the engine's metrics and the process's memory, files and CPU time."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(engine))
    ProcessCollector(registry=registry)
    return registry


class EngineCollector(Collector):
    """Collector that reads the engine at each scrape and has no state of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        steps = self._engine.stats.steps
        yield from self._gauges()
        yield from self._counters(steps)
        yield from self._histograms(steps)
        yield from self._upstreams()
        yield from self._hooks()

    def _gauges(self) -> Iterable[Metric]:
        engine, config = self._engine, self._engine.config
        yield _gauge("num_requests_running", "Replies being generated", engine.num_running)
        yield _gauge("num_requests_waiting", "Requests in the queue", engine.num_waiting)
        yield _gauge("max_requests_running", "Replies generated at once", config.max_running)
        yield _gauge("max_requests_waiting", "Requests that may wait in the queue", config.max_waiting)
        yield _gauge("kv_cache_usage_perc", "Fraction of the KV cache in use, 0 to 1", engine.kv_usage)
        yield _gauge("ready", "1 if /health/ready returns 200, else 0", is_ready(engine))

    def _upstreams(self) -> Iterable[Metric]:
        """Return the metrics of the servers that generate for this process, if there are any."""
        if not (upstreams := self._engine.upstreams()):
            return
        up = GaugeMetricFamily(PREFIX + "engine_up", "1 if the engine gets requests, else 0", labels=["url"])
        running = GaugeMetricFamily(
            PREFIX + "engine_requests_running", "Replies that the engine generates", labels=["url"]
        )
        for upstream in upstreams:
            up.add_metric([upstream.url], upstream.is_up)
            running.add_metric([upstream.url], upstream.num_running)
        yield from (up, running)
        for name, text, counts in (
            ("engine_requests", "Requests to the engine", [it.num_requests for it in upstreams]),
            ("engine_failures", "Streams of the engine that failed", [it.num_failures for it in upstreams]),
            ("engine_tokens", "Tokens that the engine generated", [it.num_tokens for it in upstreams]),
        ):
            values = dict(zip((it.url for it in upstreams), counts, strict=True))
            yield _counters(name, text, "url", values)

    def _hooks(self) -> Iterable[Metric]:
        """Return the metrics of the app's functions, of the kinds that have been called."""
        if not (hooks := self._engine.stats.hooks):
            return
        seconds = SummaryMetricFamily(
            PREFIX + "hook_seconds", "Time in functions of the app that take part in replies", labels=["hook"]
        )
        for kind, stats in hooks.items():
            seconds.add_metric([kind], stats.num, stats.total_sec)
        yield seconds
        failures = {kind: stats.num_failed for kind, stats in hooks.items()}
        yield _counters("hook_failures", "Calls of these functions that failed", "hook", failures)

    def _counters(self, steps: WorkerStats) -> Iterable[Metric]:
        stats = self._engine.stats
        finished, aborted = stats.num_finished, stats.num_aborted
        yield _counter("prompt_tokens", "Prompt tokens computed", steps.num_prefilled)
        yield _counter("generation_tokens", "Tokens generated", steps.num_generated)
        yield _counter(
            "prefix_cache_queries",
            "Prompt tokens of started requests",
            steps.num_prefilled + steps.num_reused,
        )
        yield _counter(
            "prefix_cache_hits",
            "Prompt tokens found in the prefix cache",
            steps.num_reused,
        )
        yield _counters(
            "prefix_cache_reused_tokens",
            "The same, by who may reuse them: one conversation, one API key, or everybody (shared)",
            "kind",
            steps.reused,
        )
        yield _counter("spec_decode_num_draft_tokens", "Draft tokens proposed", steps.num_drafted)
        yield _counter("spec_decode_num_accepted_tokens", "Draft tokens accepted", steps.num_accepted)
        success = {r.value: finished.get(r, 0) for r in (FinishReason.STOP, FinishReason.LENGTH)}
        yield _counters("request_success", "Replies that ended normally", "finished_reason", success)
        yield _counter("request_error", "Replies that failed", finished.get(FinishReason.ERROR, 0))
        yield _counters(
            "request_aborted",
            "Replies cancelled, timed out or abandoned by their client, by the phase they were in",
            "phase",
            dict.fromkeys(PHASES, 0) | aborted,
        )
        yield _counters(
            "admission_rejections",
            "Refused requests",
            "reason",
            dict.fromkeys(REFUSALS, 0) | stats.num_refused,
        )
        yield _counters(
            "generation_thread_replacements",
            "Worker threads replaced",
            "reason",
            dict.fromkeys(FAULTS, 0) | stats.num_replaced,
        )

    def _histograms(self, steps: WorkerStats) -> Iterable[Metric]:
        stats = self._engine.stats
        yield _histogram("request_queue_time_seconds", "From arrival to a slot", steps.queue_sec)
        yield _histogram(
            "time_to_first_token_seconds", "From arrival to the first token", steps.first_token_sec
        )
        yield _histogram("inter_token_latency_seconds", "Between two tokens of a reply", steps.gap_sec)
        yield _histogram("step_time_seconds", "One step of a worker thread", steps.step_sec)
        yield _histogram("e2e_request_latency_seconds", "From arrival to the end", stats.total_sec)
        yield _histogram("request_prefill_time_seconds", "From a slot to the first token", stats.prefill_sec)
        yield _histogram("request_decode_time_seconds", "From the first token to the end", stats.decode_sec)
        yield _histogram(
            "request_time_per_output_token_seconds",
            "Mean time per token of a reply, without its first",
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
