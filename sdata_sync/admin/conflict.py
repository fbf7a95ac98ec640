"""Conflicts: both versions side by side, and "use the other version"."""

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
    """The decisions: what stood against what, who won, and by which rule."""

    list_display = ["resource", "decided_at", "winner", "rule", "overruled_at"]
    list_filter = ["resource__kind", "remote_won", "rule", "decided_at"]
    search_fields = ["resource__uuid", "resource__local_key"]
    list_select_related = ["resource"]
    fields = ["resource", "decided_at", "winner", "rule", "overruled_at", "comparison"]
    readonly_fields = ["winner", "comparison"]
    actions = ["use_the_other_version"]

    @admin.display(description="what stayed")
    def winner(self, record: ConflictRecord) -> str:
        """Whose version stayed."""
        return "the received version" if record.remote_won else "the version that stood here"

    @admin.display(description="both versions")
    def comparison(self, record: ConflictRecord) -> SafeString:
        """The two versions, property by property; what differs is marked."""
        local, remote = _properties(record.local_payload), _properties(record.remote_payload)
        rows = format_html_join("", "<tr><th>{}</th>{}{}</tr>", _lines(local, remote))
        return format_html(
            "<table><thead><tr><th></th><th>here{}</th><th>received{}</th></tr></thead><tbody>"
            "<tr><th>changed at</th><td>{}</td><td>{}</td></tr><tr><th>when</th><td>{}</td><td>{}</td></tr>"
            "<tr><th>by</th><td>{}</td><td>{}</td></tr>{}</tbody></table>",
            "" if record.remote_won else " (stayed)",
            " (stayed)" if record.remote_won else "",
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
        """Make the version that did not stay a new change."""
        for record in queryset.select_related("resource"):
            resource = registry.of_kind(record.resource.kind)
            try:
                if resource is None:
                    raise PayloadError(f"{record.resource.kind} is not registered any more.")
                use_other_version(resource, record)
            except (PayloadError, ValidationError, DatabaseError) as error:
                self.message_user(request, f"{record.resource}: {error}", messages.ERROR)
            else:
                self.message_user(request, f"{record.resource}: the other version is used from now on.")

    def has_overrule_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may decide otherwise."""
        return request.user.has_perm("sdata_sync.change_conflictrecord")


def _properties(payload: str) -> dict[str, str | None] | None:
    """Return the texts by name; ``None`` for a deletion."""
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
