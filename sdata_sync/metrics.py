"""Serve metrics for Prometheus: ``path("metrics/", sdata_sync.metrics.view)``. Needs ``prometheus_client``."""

from .api.views.metrics import MetricsView

view = MetricsView.as_view()

__all__ = ["view"]
