"""Entries that could not be applied."""

from django.contrib import admin

from ..models import DeferredEntry
from .readonly import ReadOnlyAdmin


@admin.register(DeferredEntry)
class DeferredEntryAdmin(ReadOnlyAdmin[DeferredEntry]):
    """Deferred entries: what came, and why it waits."""

    list_display = ["resource", "reason", "payload_path", "received_at", "attempts"]
    list_filter = ["resource__kind", "application_code"]
    search_fields = ["resource__uuid", "reason"]
    list_select_related = ["resource"]
