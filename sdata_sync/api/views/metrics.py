"""The metrics at a URL, for Prometheus: with a login, as everything here."""

from __future__ import annotations

from django.http import HttpResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from ...delivery.monitoring.metrics import StatusCollector
from ..negotiation import SDataNegotiation


class MayWatch(BasePermission):
    """Those who may look at the streams in the admin."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Tell whether the user may."""
        return bool(request.user and request.user.has_perm("sdata_sync.view_stream"))


class MetricsView(APIView):
    """Answers with what ``delivery.metrics`` reads, in the format that was asked for."""

    permission_classes = [MayWatch]
    content_negotiation_class = SDataNegotiation
    metadata_class = None

    def get(self, request: Request) -> HttpResponse:
        """Return all of it. Not through a renderer: a scraper negotiates versions of a format, in its own way."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(StatusCollector())
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return HttpResponse(encode(registry), content_type=content_type)
