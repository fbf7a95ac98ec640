"""Show deferred entries with their reasons, and offer the actions retry, apply, keep and discard."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from ..models import DeferredEntry
from ..registry import registry
from ..sync.content.deferred import apply_deletions, discard, keep_rows, retry_chosen, with_mass_deletions
from ..sync.stamp.stamper import check_and_assign_ticks
from .readonly import ReadOnlyAdmin

if TYPE_CHECKING:
    from ..kind import Kind


@admin.register(DeferredEntry)
class DeferredEntryAdmin(ReadOnlyAdmin[DeferredEntry]):
    """List the received entries that could not be applied."""

    list_display = [
        "resource",
        "reason",
        "login",
        "payload_path",
        "received_at",
        "attempts",
        "is_aside",
        "is_discarded",
    ]
    list_filter = ["is_discarded", "is_aside", "resource__kind", "application_code", "login"]
    search_fields = ["resource__uuid", "reason"]
    list_select_related = ["resource"]
    actions = ["retry", "apply_deletion", "keep_row", "discard"]

    @admin.action(description="Retry now", permissions=["handle"])
    def retry(self, request: HttpRequest, queryset: QuerySet[DeferredEntry]) -> None:
        """Apply the selected entries again, now."""
        chosen = list(queryset.select_related("resource"))
        applied = 0
        for kind in registry:
            applied += retry_chosen(kind, [e.pk for e in chosen if e.resource.kind == kind.name])
        level = messages.SUCCESS if applied == len(chosen) else messages.WARNING
        self.message_user(
            request,
            f"{applied} of {len(chosen)} entries were applied. The list has the reason of each remaining entry.",
            level,
        )

    @admin.action(
        description="Apply the deletion and delete the dependent rows (recorded as conflicts)",
        permissions=["handle"],
    )
    def apply_deletion(self, request: HttpRequest, queryset: QuerySet[DeferredEntry]) -> None:
        """Apply the selected deletions with the rows that depend on them; of a mass deletion all that wait."""
        self._decide(request, queryset, apply_deletions, "deleted")

    @admin.action(description="Keep the row: its deletion is overruled at every node", permissions=["handle"])
    def keep_row(self, request: HttpRequest, queryset: QuerySet[DeferredEntry]) -> None:
        """Keep the rows of the selected deletions, as new changes of this node; of a mass deletion all that wait."""
        self._decide(request, queryset, keep_rows, "kept")

    def _decide(
        self,
        request: HttpRequest,
        queryset: QuerySet[DeferredEntry],
        act: Callable[[Kind, Collection[int]], int],
        done: str,
    ) -> None:
        chosen = with_mass_deletions(list(queryset.filter(is_deleted=True).select_related("resource")))
        for kind in registry:
            check_and_assign_ticks(kind)
        count = sum(act(kind, [e.pk for e in chosen if e.resource.kind == kind.name]) for kind in registry)
        text = f"{count} of {len(chosen)} rows were {done}."
        self.message_user(request, text, messages.SUCCESS if count == len(chosen) else messages.WARNING)

    @admin.action(description="Discard: do not retry (the entry is still sent to other nodes)", permissions=["handle"])
    def discard(self, request: HttpRequest, queryset: QuerySet[DeferredEntry]) -> None:
        """Mark the selected entries as discarded, so that they are not retried."""
        self.message_user(
            request,
            f"{discard(queryset)} entries are not retried. A later version of the resource replaces a discarded entry.",
        )

    def has_handle_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may decide about deferred entries."""
        return request.user.has_perm("sdata_sync.change_deferredentry")
