"""Show the log of changes: the tracked resources."""

from django.contrib import admin
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from ..models import RunResult, TrackedResource
from ..registry import registry
from .readonly import ReadOnlyAdmin, shown_stamp


@admin.register(TrackedResource)
class TrackedResourceAdmin(ReadOnlyAdmin[TrackedResource]):
    """List the tracked resources, each with a link to its row."""

    list_display = ["uuid", "kind", "object_link", "state", "tick", "changed", "user", "endpoint"]
    list_filter = ["kind", "is_deleted", "is_deferred", ("endpoint", admin.RelatedOnlyFieldListFilter)]
    search_fields = ["uuid", "local_key"]
    list_select_related = ["endpoint", "awaited_endpoint"]
    show_full_result_count = False
    readonly_fields = ["object_link", "changed", "state", "awaited", "reported"]

    @admin.display(description="missing references")
    def awaited(self, tracked: TrackedResource) -> SafeString | str:
        """Return the references to resources that this node has not received yet."""
        lines = tracked.pending_references.values_list("name", "kind", "uuid")
        return format_html_join(mark_safe("<br>"), "{} {} {}", lines) or "-"

    @admin.display(description="reported by other nodes")
    def reported(self, tracked: TrackedResource) -> SafeString | str:
        """Return the results that other nodes reported for this resource, where it was not applied."""
        results = RunResult.objects.filter(uuid=tracked.uuid, run__kind=tracked.kind).select_related("run")
        lines = ((r.run.target, r.status, r.message, r.diagnosis) for r in results.order_by("-pk")[:20])
        return format_html_join(mark_safe("<br>"), "{}: {} {} {}", lines) or "-"

    @admin.display(description="object", ordering="local_key")
    def object_link(self, tracked: TrackedResource) -> SafeString | str:
        """Return a link to the admin page of the row, or the local key if there is no such page."""
        key: str | None = tracked.local_key
        if key is None:
            return "-"
        kind = registry.of_kind(tracked.kind)
        if kind is None:
            return key
        meta = kind.model._meta
        try:
            url = reverse(f"{self.admin_site.name}:{meta.app_label}_{meta.model_name}_change", args=[key])
        except NoReverseMatch:
            return key
        return format_html('<a href="{}">{} {}</a>', url, meta.verbose_name, key)

    @admin.display(description="changed", ordering="stamp")
    def changed(self, tracked: TrackedResource) -> str:
        """Return the time of the resource's last change at any node."""
        return shown_stamp(tracked.stamp) if tracked.tick is not None else "-"

    @admin.display(description="state")
    def state(self, tracked: TrackedResource) -> str:
        """Return the status of the resource that its sync state does not show."""
        if tracked.problem:
            return f"held back: {tracked.problem}"
        if tracked.is_deferred:
            return "deferred"
        if tracked.replaced_by is not None:
            return f"alias of {tracked.replaced_by}"
        if tracked.is_incomplete:
            return "waits for a referenced resource"
        if tracked.awaited_endpoint is not None:
            return f"linked; waits for the version of {tracked.awaited_endpoint.url}"
        if tracked.mark is not None:
            return "changed, no tick assigned yet"
        return "deleted" if tracked.is_deleted else ""
