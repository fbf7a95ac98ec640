"""Serve the metrics for Prometheus to users that are logged in."""

from __future__ import annotations

from django.http import HttpResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from ...delivery.monitoring.metrics import StatusCollector
from ..negotiation import SDataNegotiation


class MayReadStatus(BasePermission):
    """Allow users that may view streams in the admin."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return True if the user has the permission ``sdata_sync.view_stream``."""
        return bool(request.user and request.user.has_perm("sdata_sync.view_stream"))


class MetricsView(APIView):
    """Serve the metrics of ``delivery.metrics`` in the format that the client accepts."""

    permission_classes = [MayReadStatus]
    content_negotiation_class = SDataNegotiation
    metadata_class = None

    def get(self, request: Request) -> HttpResponse:
        """Return all metrics.

        No renderer is used, because Prometheus negotiates the version of its format by its own rules.
        """
        registry = CollectorRegistry(auto_describe=False)
        registry.register(StatusCollector())
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return HttpResponse(encode(registry), content_type=content_type)
