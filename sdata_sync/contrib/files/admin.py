"""Show the files that are still to be fetched."""

from django.contrib import admin

from ...admin.readonly import ReadOnlyAdmin, shown_stamp
from .models import WantedFile


@admin.register(WantedFile)
class WantedFileAdmin(ReadOnlyAdmin[WantedFile]):
    """List the files that are still to be fetched."""

    list_display = ["path", "kind", "received", "attempts", "problem", "added"]
    list_filter = ["kind"]
    search_fields = ["path", "problem"]

    @admin.display(description="received")
    def received(self, wanted: WantedFile) -> str:
        """Return how many of the bytes have arrived."""
        return f"{wanted.received_bytes} of {'?' if wanted.size_bytes is None else wanted.size_bytes} bytes"

    @admin.display(description="added", ordering="added_at")
    def added(self, wanted: WantedFile) -> str:
        """Return when the row that names the file was received."""
        return shown_stamp(wanted.added_at)
