"""What other nodes reported, and the asynchronous calls that are under way."""

from django.contrib import admin

from ..models import Operation, Run, RunResult
from .readonly import ReadOnlyAdmin, ReadOnlyInline, shown_stamp


class RunResultInline(ReadOnlyInline[RunResult, Run]):
    """One line for each entry that was not simply taken."""

    model = RunResult
    fields = ["uuid", "status", "message", "diagnosis"]


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin[Run]):
    """Runs of engines that reported what became of our changes."""

    list_display = ["kind", "name", "stamp", "target", "applied", "exceptions", "reported_at"]
    list_filter = ["kind", "reported_at"]
    search_fields = ["name", "target", "results__uuid"]
    inlines = [RunResultInline]


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin[Operation]):
    """Calls of ``$syncSource`` and ``$syncTarget`` that outlive their request."""

    list_display = ["tracking_id", "kind", "role", "phase", "done", "total", "run_name", "created"]
    list_filter = ["kind", "role", "phase"]
    search_fields = ["tracking_id", "run_name"]
    fields = ["tracking_id", "kind", "role", "phase", "failure", "done", "total", "run_name", "run_stamp", "created"]
    readonly_fields = ["created"]

    @admin.display(description="begun", ordering="created_at")
    def created(self, operation: Operation) -> str:
        """When it was asked for."""
        return shown_stamp(operation.created_at)
