"""Show conflicts with both versions side by side, and offer the action "use the other version"."""

from collections.abc import Iterable

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import DatabaseError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from ..atom.payload import Payload
from ..exceptions import PayloadError
from ..models import ConflictRecord
from ..registry import registry
from ..sync.apply.conflicts import use_other_version
from .readonly import ReadOnlyAdmin, shown_stamp


@admin.register(ConflictRecord)
class ConflictRecordAdmin(ReadOnlyAdmin[ConflictRecord]):
    """List the decided conflicts: the resource, the time, the version that was kept, and the rule."""

    list_display = ["resource", "decided_at", "winner", "rule", "overruled_at"]
    list_filter = ["resource__kind", "remote_won", "rule", "decided_at"]
    search_fields = ["resource__uuid", "resource__local_key"]
    list_select_related = ["resource"]
    fields = ["resource", "decided_at", "winner", "rule", "overruled_at", "comparison"]
    readonly_fields = ["winner", "comparison"]
    actions = ["use_the_other_version"]

    @admin.display(description="version kept")
    def winner(self, record: ConflictRecord) -> str:
        """Return which version was kept: the received one or this node's."""
        return "the received version" if record.remote_won else "the version of this node"

    @admin.display(description="both versions")
    def comparison(self, record: ConflictRecord) -> SafeString:
        """Return a table of both versions, property by property, with the differences marked."""
        local, remote = _properties(record.local_payload), _properties(record.remote_payload)
        rows = format_html_join("", "<tr><th>{}</th>{}{}</tr>", _lines(local, remote))
        return format_html(
            "<table><thead><tr><th></th><th>this node{}</th><th>received{}</th></tr></thead><tbody>"
            "<tr><th>endpoint</th><td>{}</td><td>{}</td></tr><tr><th>changed at</th><td>{}</td><td>{}</td></tr>"
            "<tr><th>user</th><td>{}</td><td>{}</td></tr>{}</tbody></table>",
            "" if record.remote_won else " (kept)",
            " (kept)" if record.remote_won else "",
            record.local_endpoint,
            record.remote_endpoint,
            shown_stamp(record.local_stamp),
            shown_stamp(record.remote_stamp),
            record.local_user or "-",
            record.remote_user or "-",
            rows,
        )

    @admin.action(description="Use the other version", permissions=["overrule"])
    def use_the_other_version(self, request: HttpRequest, queryset: QuerySet[ConflictRecord]) -> None:
        """Write the version that was not kept to its row, as a new change of this node."""
        for record in queryset.select_related("resource"):
            kind = registry.of_kind(record.resource.kind)
            try:
                if kind is None:
                    raise PayloadError(f"The kind {record.resource.kind} is not registered any more.")
                use_other_version(kind, record)
            except (PayloadError, ValidationError, DatabaseError) as error:
                self.message_user(request, f"{record.resource}: {error}", messages.ERROR)
            else:
                self.message_user(request, f"{record.resource}: the other version is used from now on.")

    def has_overrule_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may use the other version."""
        return request.user.has_perm("sdata_sync.change_conflictrecord")


def _properties(payload: str) -> dict[str, str | None] | None:
    """Return the field texts of a payload by property name, or ``None`` for a deletion."""
    if not payload:
        return None
    return {item.name: item.text if item.is_plain else "…" for item in Payload.from_xml(payload)}


def _lines(
    local: dict[str, str | None] | None, remote: dict[str, str | None] | None
) -> Iterable[tuple[str, SafeString, SafeString]]:
    names = list(dict.fromkeys([*(local or {}), *(remote or {})]))
    if local is None or remote is None:
        yield (
            "",
            _cell("deleted" if local is None else "", marked=True),
            _cell("deleted" if remote is None else "", marked=True),
        )
    for name in names:
        ours, theirs = _shown(local, name), _shown(remote, name)
        yield name, _cell(ours, marked=ours != theirs), _cell(theirs, marked=ours != theirs)


def _shown(version: dict[str, str | None] | None, name: str) -> str:
    if version is None or name not in version:
        return "-"
    text = version[name]
    return "(null)" if text is None else text


def _cell(text: str, *, marked: bool) -> SafeString:
    return format_html("<td><mark>{}</mark></td>" if marked else "<td>{}</td>", text)
