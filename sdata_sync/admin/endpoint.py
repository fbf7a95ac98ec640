"""The endpoints that were ever heard of, and whose clocks are ahead."""

from django.contrib import admin

from ..models import Endpoint
from .readonly import ReadOnlyAdmin


@admin.register(Endpoint)
class EndpointAdmin(ReadOnlyAdmin[Endpoint]):
    """Endpoints."""

    list_display = ["url", "clock", "clock_ahead_at", "clone_seen_at", "clone_note", "anomaly_at", "anomaly_note"]
    list_filter = ["is_forgotten"]
    search_fields = ["url"]

    @admin.display(description="clock", ordering="clock_ahead")
    def clock(self, endpoint: Endpoint) -> str:
        """By how much it was ahead of ours, when it last was by too much."""
        return f"{endpoint.clock_ahead / 1000:.1f} s ahead of ours" if endpoint.clock_ahead else "-"
