"""Show the known endpoints, with clock warnings, reused ticks and impossible claims."""

from django.contrib import admin

from ..models import Endpoint
from .readonly import ReadOnlyAdmin


@admin.register(Endpoint)
class EndpointAdmin(ReadOnlyAdmin[Endpoint]):
    """List the known endpoints."""

    list_display = ["url", "clock", "clock_ahead_at", "clone_seen_at", "clone_note", "anomaly_at", "anomaly_note"]
    list_filter = ["is_forgotten"]
    search_fields = ["url"]

    @admin.display(description="clock", ordering="clock_ahead")
    def clock(self, endpoint: Endpoint) -> str:
        """Return how far the endpoint's clock was ahead of this node's clock when it was last too far ahead."""
        return f"{endpoint.clock_ahead / 1000:.1f} s ahead of this node" if endpoint.clock_ahead else "-"
