"""What the API counts about itself, for Prometheus; each application has a registry of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from headwater.api._backlog import seconds_behind
from headwater.api._follows import Standing
from headwater.types import Metrics

if TYPE_CHECKING:
    from headwater.api._service import Service

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Edges of the latency histogram: an answer takes milliseconds, a wait for an offset seconds."""


# A second series beside every counter, with the time at which this process started: noise.
disable_created_metrics()  # type: ignore[no-untyped-call]


class ApiMetrics:
    """Counters of one application, and the registry that its ``/metrics`` shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = Counter(
            "headwater_events",
            "Events received, by what became of them.",
            ["status"],
            registry=self.registry,
        )
        self.requests = Counter(
            "headwater_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.latency = Histogram(
            "headwater_http_request_seconds",
            "Time from request to answer.",
            ["method", "route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.recommendations = Counter(
            "headwater_recommendations", "Lists answered.", ["kind"], registry=self.registry
        )
        self.shed = Counter(
            "headwater_shed",
            "Requests turned away with 503, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._kept: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        for status in ("accepted", "duplicate", "rejected"):
            self.events.labels(status)
        for kind in ("user", "session", "popular"):
            self.recommendations.labels(kind)
        self.of_users = self.recommendations.labels("user")

    def _series(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        """Kept, for looking one up takes as long as counting."""
        key = (method, route, status)
        found = self._kept.get(key)
        if found is None:
            found = (self.requests.labels(*key), self.latency.labels(method, route))
            self._kept[key] = found
        return found

    def refused(self, method: str, kind: str) -> None:
        """Counts a request that was turned away before it was routed."""
        self._series(method, "none", 503)[0].inc()
        self.shed.labels(kind).inc()

    def measured(self, app: ASGIApp) -> ASGIApp:
        """Wraps ``app`` so that every HTTP request is counted and timed, by route."""

        async def timed(scope: Scope, receive: Receive, send: Send) -> None:
            status = 500

            async def watched(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            started = time.perf_counter()
            try:
                await app(scope, receive, watched)
            finally:
                # The path itself would make a series of every id; and what no route answers, of
                # every word that a stranger sends as method or path.
                route = cast(dict[str, Any], scope).get("path_template")
                method = cast(HTTPScope, scope)["method"] if route else "none"
                route = route or "none"
                counted, timed_as = self._series(method, route, status)
                counted.inc()
                timed_as.observe(time.perf_counter() - started)

        return timed

    def exposition(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


class StateCollector(Collector):
    """Reads the state of logs, follower and trainer at the moment that Prometheus asks."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        service = self._service
        standing = service.engine.standing
        end, now = service.events.end(), time.time()

        def behind(offset: int) -> float:
            return seconds_behind(service.events, offset, now)

        for name, what, value in (
            ("events_log_offset", "Newest offset of the events log.", end),
            ("events_log_start", "Offset after which the log begins.", service.events.start()),
            ("folded_offset", "Offset that this process has folded.", standing.offset),
            ("trained_through_offset", "Offset learned.", standing.trained_through),
            (
                "gradient_through_offset",
                "Offset through which the gradient took its sample.",
                standing.gradient_through,
            ),
            ("lag_events", "Entries that this process hasn't folded.", end - standing.offset),
            ("training_lag_events", "Entries not learned.", end - standing.trained_through),
            ("lag_seconds", "Since the oldest entry not folded came.", behind(standing.offset)),
            (
                "training_lag_seconds",
                "Since the oldest entry not learned came.",
                behind(standing.trained_through),
            ),
            ("backlog", "Entries taken in and not committed or not folded.", service.backlog.size),
            ("version", "Structural version of the live model.", standing.version),
            ("epoch", "Epoch of the updates log.", standing.epoch),
            ("sequence", "Newest update applied.", standing.sequence),
            ("dead_letters", "Entries refused so far.", service.events.dead_letter_count()),
            ("ready", "1 once the log was folded.", int(service.engine.ready)),
        ):
            yield GaugeMetricFamily(f"headwater_{name}", what, value=value)
        served = CounterMetricFamily("headwater_served", "Lists shown.", labels=["version"])
        clicked = CounterMetricFamily(
            "headwater_clicked", "Lists acted on, by how that is known.", labels=["version", "by"]
        )
        for row in service.feedback.click_through():
            served.add_metric([str(row.version)], row.served)
            clicked.add_metric([str(row.version), "id"], row.by_id)
            clicked.add_metric([str(row.version), "window"], row.by_window)
        yield served
        yield clicked
        hits = CounterMetricFamily("headwater_cache_hits", "Found kept.", labels=["cache"])
        misses = CounterMetricFamily("headwater_cache_misses", "Made anew.", labels=["cache"])
        for name, cache in service.engine.caches.items():
            hits.add_metric([name], cache.hits)
            misses.add_metric([name], cache.misses)
        yield hits
        yield misses
        yield from _reported(standing.report)
        yield from _figures(metrics_of(service, standing))


def metrics_of(service: Service, standing: Standing) -> list[Metrics]:
    """The metrics of the trainer's report, none where there is none yet; and the click-through of
    what the live version shows, which only the API knows, as one of satisfaction.
    """
    metrics = msgspec.convert(standing.report.get("metrics", []), list[Metrics])
    rates = {row.version: row.rate for row in service.feedback.click_through()}
    if standing.version not in rates:
        return metrics
    place = ("newest", "satisfaction")
    others = [one for one in metrics if (one.window, one.segment) != place]
    known = next((one.values for one in metrics if (one.window, one.segment) == place), {})
    return [*others, Metrics(*place, {**known, "click_through": rates[standing.version]})]


def _reported(report: Mapping[str, Any]) -> Iterator[Metric]:
    trainer = GaugeMetricFamily(
        "headwater_trainer", "Numbers of the trainer's newest report.", labels=["name"]
    )
    for name, number in numbers(
        {k: v for k, v in report.items() if k not in ("cleaned", "guards", "changes")}
    ):
        trainer.add_metric([name], number)
    yield trainer
    cleaned = CounterMetricFamily(
        "headwater_cleaned_events", "Events that teach nothing, by reason.", labels=["reason"]
    )
    for reason, n in report.get("cleaned", {}).items():
        cleaned.add_metric([reason], n)
    yield cleaned
    tripped = CounterMetricFamily(
        "headwater_guard_tripped", "Batches that a guard held back.", labels=["guard"]
    )
    for guard, n in report.get("guards", {}).items():
        tripped.add_metric([guard], n)
    yield tripped
    changed = CounterMetricFamily(
        "headwater_stream_changes", "Where the stream changed course.", labels=["what"]
    )
    for what, n in report.get("changes", {}).items():
        changed.add_metric([what], n)
    yield changed


def _figures(figures: Sequence[Metrics]) -> Iterator[Metric]:
    labels = ["window", "segment", "metric"]
    value = GaugeMetricFamily("headwater_metric", "Predictions tested on events.", labels=labels)
    low = GaugeMetricFamily("headwater_metric_low", "Low end of 95 %.", labels=labels)
    high = GaugeMetricFamily("headwater_metric_high", "High end of 95 %.", labels=labels)
    for metrics in figures:
        for name, metric in metrics.values.items():
            place = [metrics.window, metrics.segment, name]
            value.add_metric(place, metric.value)
            low.add_metric(place, metric.low)
            high.add_metric(place, metric.high)
    yield from (value, low, high)


def numbers(report: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested mappings, each with its dotted path.

    >>> list(numbers({"events": 3, "rates": {"mixture": 0.5, "name": "adam"}}))
    [('events', 3.0), ('rates.mixture', 0.5)]
    """
    for key, value in report.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", float(value)
