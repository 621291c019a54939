"""The figures of a server for Prometheus: the engine's own, read when they are asked for, and those of HTTP."""

import time
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from ..engine import Engine
from ..runtime import build_info

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

# Name here, key of Engine.metrics(), what it is.
_GAUGES = (
    ("bitnet_requests_waiting", "queue_depth", "Requests that wait for a place."),
    ("bitnet_requests_running", "running", "Requests that the engine continues."),
    ("bitnet_batch_tokens", "batch_tokens", "Tokens computed in the last step."),
    ("bitnet_batch_token_limit", "batch_token_limit", "Tokens that the next step may compute."),
    ("bitnet_kv_page_bytes", "kv_page_bytes", "Size of a page of keys and values of 64 tokens."),
    ("bitnet_kv_pages_limit", "kv_pages_limit", "Pages that there may be."),
    ("bitnet_kv_pages_used", "kv_pages_used", "Pages of requests that run."),
    ("bitnet_kv_pages_cached", "kv_pages_cached", "Pages kept for requests to come."),
    ("bitnet_kv_pages_reserved", "kv_pages_reserved", "Pages taken from the memory budget."),
)
_COUNTERS = (
    ("bitnet_steps", "steps", "Steps of the engine."),
    ("bitnet_preemptions", "preemptions", "Times that a request had to give its place or pages back."),
    ("bitnet_prompt_tokens", "prompt_tokens", "Tokens of prompts that were computed."),
    ("bitnet_generated_tokens", "generated_tokens", "Tokens that were generated."),
    (
        "bitnet_prefix_hit_tokens",
        "prefix_hit_tokens",
        "Tokens of prompts that were not computed: their pages were there.",
    ),
    ("bitnet_draft_tokens", "draft_tokens", "Tokens that were guessed."),
    ("bitnet_accepted_draft_tokens", "accepted_draft_tokens", "Tokens that were guessed right."),
)
_OUTCOMES = ("finished", "canceled", "expired", "failed", "rejected")
_HISTOGRAMS = (
    ("bitnet_time_to_first_token_seconds", "time_to_first_token", "From a request's acceptance to its first token."),
    ("bitnet_time_per_token_seconds", "time_per_token", "Between two tokens of a request."),
    ("bitnet_step_seconds", "step_time", "A step of the engine."),
    ("bitnet_batch_size", "batch_size", "Requests that took part in a step."),
)


class Metrics:
    """Counts of one server, in a registry of its own.

    content_type: of what ``text`` gives.
    registry: Prometheus' registry of them all.
    requests: answered, by method, route and status.
    seconds: from a request's first byte to the answer's last, by route.
    in_flight: requests that are being answered.
    errors: that clients were told of, by code.
    embeddings: requests for vectors that wait or run.
    texts: long texts that wait to become tokens, or tokens a text, the one that does included.
    embedded: tokens of texts that became vectors.
    disconnects: requests whose client had gone before the end.
    """

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, engine: Engine, model: str) -> None:
        self._engine = engine
        self._started = time.monotonic()
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCollector(engine, model))
        ProcessCollector(registry=self.registry)
        made: Any = {"registry": self.registry}
        self.requests = Counter("bitnet_http_requests", "Requests answered.", ["method", "route", "status"], **made)
        self.seconds = Histogram(
            "bitnet_http_request_seconds",
            "From a request's first byte to the answer's last.",
            ["route"],
            buckets=_SECONDS,
            **made,
        )
        self.in_flight = Gauge("bitnet_http_requests_in_flight", "Requests that are being answered.", **made)
        self.errors = Counter("bitnet_errors", "Errors that clients were told of.", ["code"], **made)
        self.embeddings = Gauge("bitnet_embeddings_in_flight", "Requests for vectors that wait or run.", **made)
        self.texts = Gauge(
            "bitnet_texts_in_flight", "Long texts that wait to become tokens, or tokens a text, or do.", **made
        )
        self.embedded = Counter("bitnet_embedded_tokens", "Tokens of texts that became vectors.", **made)
        self.disconnects = Counter(
            "bitnet_client_disconnects", "Requests whose client had gone before the end.", **made
        )

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self.registry)

    def seconds_until_room(self) -> float:
        """About how long a full queue takes to be half empty, as far as the requests so far tell; 1 to 60."""
        figures = self._engine.metrics()
        done = sum(figures[outcome] for outcome in _OUTCOMES[:4])
        rate = done / max(time.monotonic() - self._started, 1e-3)
        return min(max(figures["queue_depth"] / 2 / rate if rate else 60.0, 1.0), 60.0)


class _EngineCollector(Collector):
    """Reads the engine's figures once for each scrape."""

    def __init__(self, engine: Engine, model: str) -> None:
        self._engine = engine
        build = build_info()
        self._info = {
            "model": model,
            "version": build["version"],
            "isa": build["isa"],
            "threads": str(build["threads"]),
        }

    def collect(self) -> Iterator[Any]:
        figures = self._engine.metrics()
        yield InfoMetricFamily("bitnet", "What is running.", self._info)
        for name, key, text in _GAUGES:
            yield GaugeMetricFamily(name, text, figures[key])
        for name, key, text in _COUNTERS:
            yield CounterMetricFamily(name, text, figures[key])
        ended = CounterMetricFamily("bitnet_requests", "Requests to the engine, by how they ended.", labels=["outcome"])
        for outcome in _OUTCOMES:
            ended.add_metric([outcome], figures[outcome])
        yield ended
        for name, key, text in _HISTOGRAMS:
            yield _histogram(name, text, figures[key])


def _histogram(name: str, text: str, histogram: Mapping[str, Any]) -> HistogramMetricFamily:
    bounds = [*map(str, map(float, histogram["bounds"])), "+Inf"]
    buckets = list(zip(bounds, accumulate(histogram["counts"]), strict=True))
    return HistogramMetricFamily(name, text, buckets, histogram["sum"])
