"""Show the results that other nodes reported, and the asynchronous operations."""

from django.contrib import admin

from ..models import Operation, Run, RunResult
from .readonly import ReadOnlyAdmin, ReadOnlyInline, shown_stamp


class RunResultInline(ReadOnlyInline[RunResult, Run]):
    """List the reported results of entries that were not applied."""

    model = RunResult
    fields = ["uuid", "status", "message", "diagnosis"]


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin[Run]):
    """List the runs of engines that reported results for changes of this node."""

    list_display = ["kind", "name", "stamp", "target", "applied", "exceptions", "reported_at"]
    list_filter = ["kind", "reported_at"]
    search_fields = ["name", "target", "results__uuid"]
    inlines = [RunResultInline]


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin[Operation]):
    """List the calls of ``$syncSource`` and ``$syncTarget`` that outlive their request."""

    list_display = ["tracking_id", "kind", "role", "phase", "done", "total", "run_name", "created"]
    list_filter = ["kind", "role", "phase"]
    search_fields = ["tracking_id", "run_name"]
    fields = ["tracking_id", "kind", "role", "phase", "failure", "done", "total", "run_name", "run_stamp", "created"]
    readonly_fields = ["created"]

    @admin.display(description="created", ordering="created_at")
    def created(self, operation: Operation) -> str:
        """Return the time of the request that created the operation."""
        return shown_stamp(operation.created_at)
