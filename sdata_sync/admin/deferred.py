"""Entries that could not be applied: what came, why it waits, retry and discard."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from ..models import DeferredEntry
from ..registry import registry
from ..sync.content.deferred import apply_deletions, discard, keep_rows, retry_chosen
from ..sync.stamp.stamper import number_changes
from .readonly import ReadOnlyAdmin

if TYPE_CHECKING:
    from ..resources import SyncResource


@admin.register(DeferredEntry)
class DeferredEntryAdmin(ReadOnlyAdmin[DeferredEntry]):
    """Deferred entries."""

    list_display = ["resource", "reason", "payload_path", "received_at", "attempts", "is_discarded"]
    list_filter = ["is_discarded", "resource__kind", "application_code"]
    search_fields = ["resource__uuid", "reason"]
    list_select_related = ["resource"]
    actions = ["retry", "apply_deletion", "keep_row", "discard"]

    @admin.action(description="Try again", permissions=["handle"])
    def retry(self, request: HttpRequest, queryset: QuerySet[DeferredEntry]) -> None:
        """Try the selected entries again, now."""
        chosen = list(queryset.select_related("resource"))
        applied = 0
        for resource in registry:
            applied += retry_chosen(resource, [e.pk for e in chosen if e.resource.kind == resource.kind])
        level = messages.SUCCESS if applied == len(chosen) else messages.WARNING
        self.message_user(request, f"{applied} of {len(chosen)} could be applied.", level)

    @admin.action(
        description="Apply the deletion, with the rows that it takes along (recorded as conflicts)",
        permissions=["handle"],
    )
    def apply_deletion(self, request: HttpRequest, queryset: QuerySet[DeferredEntry]) -> None:
        """Apply the selected deletions with all that they take along."""
        self._decide(request, queryset, apply_deletions, "deleted")

    @admin.action(description="Keep the row: its deletion is overruled, at every node", permissions=["handle"])
    def keep_row(self, request: HttpRequest, queryset: QuerySet[DeferredEntry]) -> None:
        """Keep the rows whose deletions are selected."""
        self._decide(request, queryset, keep_rows, "kept")

    def _decide(
        self,
        request: HttpRequest,
        queryset: QuerySet[DeferredEntry],
        act: Callable[[SyncResource, Collection[int]], int],
        done: str,
    ) -> None:
        chosen = list(queryset.filter(is_deleted=True).select_related("resource"))
        for resource in registry:
            number_changes(resource)
        count = sum(act(resource, [e.pk for e in chosen if e.resource.kind == resource.kind]) for resource in registry)
        text = f"{count} of {len(chosen)} rows were {done}."
        self.message_user(request, text, messages.SUCCESS if count == len(chosen) else messages.WARNING)

    @admin.action(description="Discard: do not try again (it is still sent on to others)", permissions=["handle"])
    def discard(self, request: HttpRequest, queryset: QuerySet[DeferredEntry]) -> None:
        """Leave the selected entries alone from now on."""
        self.message_user(request, f"{discard(queryset)} will not be tried again.")

    def has_handle_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may decide what becomes of deferred entries."""
        return request.user.has_perm("sdata_sync.change_deferredentry")
