"""Entries that could not be applied: what came, why it waits, retry and discard."""

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from ..models import DeferredEntry
from ..registry import registry
from ..sync.deferring import discard, retry_chosen
from .readonly import ReadOnlyAdmin


@admin.register(DeferredEntry)
class DeferredEntryAdmin(ReadOnlyAdmin[DeferredEntry]):
    """Deferred entries."""

    list_display = ["resource", "reason", "payload_path", "received_at", "attempts", "is_discarded"]
    list_filter = ["is_discarded", "resource__kind", "application_code"]
    search_fields = ["resource__uuid", "reason"]
    list_select_related = ["resource"]
    actions = ["retry", "discard"]

    @admin.action(description="Try again", permissions=["handle"])
    def retry(self, request: HttpRequest, queryset: QuerySet[DeferredEntry]) -> None:
        """Try the selected entries again, now."""
        chosen = list(queryset.select_related("resource"))
        applied = 0
        for resource in registry:
            applied += retry_chosen(resource, [e.pk for e in chosen if e.resource.kind == resource.kind])
        level = messages.SUCCESS if applied == len(chosen) else messages.WARNING
        self.message_user(request, f"{applied} of {len(chosen)} could be applied.", level)

    @admin.action(description="Discard: do not try again (it is still sent on to others)", permissions=["handle"])
    def discard(self, request: HttpRequest, queryset: QuerySet[DeferredEntry]) -> None:
        """Leave the selected entries alone from now on."""
        self.message_user(request, f"{discard(queryset)} will not be tried again.")

    def has_handle_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may decide what becomes of deferred entries."""
        return request.user.has_perm("sdata_sync.change_deferredentry")
