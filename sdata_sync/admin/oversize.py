"""Show the versions that are larger than a peer accepts."""

from django.contrib import admin

from ..models import OversizeVersion
from .readonly import ReadOnlyAdmin, shown_stamp


@admin.register(OversizeVersion)
class OversizeVersionAdmin(ReadOnlyAdmin[OversizeVersion]):
    """List the versions that are left out of feeds to one peer."""

    list_display = ["resource", "peer", "size_bytes", "reason", "since", "attempts", "next_attempt"]
    list_filter = ["peer", "resource__kind"]
    search_fields = ["resource__uuid", "resource__local_key"]
    list_select_related = ["resource", "peer"]

    @admin.display(description="since", ordering="held_since")
    def since(self, held: OversizeVersion) -> str:
        """Return the time when the version was first found too large."""
        return shown_stamp(held.held_since)

    @admin.display(description="next attempt", ordering="retry_at")
    def next_attempt(self, held: OversizeVersion) -> str:
        """Return the time when the version is offered to the peer again."""
        return shown_stamp(held.retry_at)
