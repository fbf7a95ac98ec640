"""Show the files of rows, and why some are not here."""

from django.contrib import admin

from ...admin.readonly import ReadOnlyAdmin, shown_stamp
from .models import RowFile


@admin.register(RowFile)
class RowFileAdmin(ReadOnlyAdmin[RowFile]):
    """List the files of rows: those that are here, and those that are still to be fetched."""

    list_display = ["path", "kind", "state", "received", "attempts", "problem", "added"]
    list_filter = ["state", "kind"]
    search_fields = ["path", "problem"]

    @admin.display(description="received")
    def received(self, wanted: RowFile) -> str:
        """Return how many of the bytes have arrived."""
        return f"{wanted.received_bytes} of {'?' if wanted.size_bytes is None else wanted.size_bytes} bytes"

    @admin.display(description="added", ordering="added_at")
    def added(self, wanted: RowFile) -> str:
        """Return when the row that names the file was received."""
        return shown_stamp(wanted.added_at)
