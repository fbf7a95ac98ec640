"""Provide the status as Prometheus metrics, which any process can read from the database."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from ...conf import conf
from .status import KindStatus, Status, StreamStatus, collect_status


class StatusCollector(Collector):
    """Reads the status when the metrics are collected."""

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, with a sample for each kind, or for each kind and peer."""
        status = collect_status(conf.base_url)
        yield from _of_kinds(status.kinds)
        yield from _of_streams([(kind.kind, stream) for kind in status.kinds for stream in kind.streams])
        yield from _of_others(status)


def _metric(
    family: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    text: str,
    labels: list[str],
    samples: Iterator[tuple[list[str], float]],
) -> Metric:
    metric = family(f"sdata_sync_{name}", text, labels=labels)
    for values, value in samples:
        metric.add_metric(values, value)
    return metric


_gauge = partial(_metric, GaugeMetricFamily)
_counter = partial(_metric, CounterMetricFamily)


def _of_kinds(kinds: tuple[KindStatus, ...]) -> Iterator[Metric]:
    label = ["kind"]
    yield _gauge("tick", "The tick that the next change gets.", label, (([k.kind], k.tick) for k in kinds))
    yield _gauge("unnumbered", "Changes without a tick yet.", label, (([k.kind], k.unnumbered) for k in kinds))
    yield _gauge("held_back", "Changes that cannot be sent.", label, (([k.kind], k.held_back) for k in kinds))
    yield _gauge("deferred", "Deferred entries.", label, (([k.kind], k.deferred) for k in kinds))
    yield _gauge(
        "restored",
        "1 while changes that were lost in a restore are missing.",
        label,
        (([k.kind], float(k.is_behind)) for k in kinds),
    )
    yield _counter(
        "received_entries",
        "Received entries by outcome.",
        ["kind", "outcome"],
        (([k.kind, outcome], count) for k in kinds for outcome, count in k.received.items()),
    )
    yield _counter("conflicts", "Conflicts, won or lost.", label, (([k.kind], k.conflicts) for k in kinds))


def _of_streams(streams: list[tuple[str, StreamStatus]]) -> Iterator[Metric]:
    labels = ["kind", "peer"]
    known = [(kind, s) for kind, s in streams if s.ticks_behind is not None and s.seconds_behind is not None]
    yield _gauge(
        "ticks_behind",
        "The ticks that the peer lacks; no sample while its digest is not known.",
        labels,
        (([kind, s.peer], s.ticks_behind or 0) for kind, s in known),
    )
    yield _gauge(
        "seconds_behind",
        "The age of the oldest change that the peer lacks; no sample while its digest is not known.",
        labels,
        (([kind, s.peer], s.seconds_behind or 0.0) for kind, s in known),
    )
    yield _gauge("failing", "Failures in a row.", labels, (([kind, s.peer], s.failures) for kind, s in streams))
    yield _gauge(
        "last_success_timestamp_seconds",
        "The time of the last successful delivery.",
        labels,
        (([kind, s.peer], s.last_success.timestamp()) for kind, s in streams if s.last_success),
    )
    yield _counter(
        "delivered_entries",
        "Entries that the peer has accepted.",
        labels,
        (([k, s.peer], s.delivered) for k, s in streams),
    )
    yield _counter(
        "failed_deliveries", "Deliveries that failed.", labels, (([k, s.peer], s.failed_passes) for k, s in streams)
    )
    family = SummaryMetricFamily("sdata_sync_delivery_seconds", "The duration of the deliveries.", labels=labels)
    for kind, stream in streams:
        family.add_metric([kind, stream.peer], count_value=stream.passes, sum_value=stream.busy_seconds)
    yield family


def _of_others(status: Status) -> Iterator[Metric]:
    label = ["endpoint"]
    yield _gauge(
        "clock_ahead_seconds",
        "The seconds by which stamps of the endpoint were ahead of this node's clock.",
        label,
        (([clock.endpoint], clock.ahead_seconds) for clock in status.clocks),
    )
    yield _gauge(
        "clone_seen",
        "1 if two different changes with one tick of the endpoint were received.",
        label,
        (([clone.endpoint], 1.0) for clone in status.clones),
    )
