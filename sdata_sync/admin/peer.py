"""Peers, how far they are, and "deliver now"."""

from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ..delivery.catchup import catch_up
from ..delivery.monitoring.status import ticks_behind
from ..delivery.progress import Watch
from ..delivery.session import Courier
from ..models import Peer, Stream
from ..registry import registry
from ..sync.log.digests import load_digest
from .link import link_page
from .readonly import ModelAdmin, ReadOnlyInline, shown_stamp


class StreamInline(ReadOnlyInline[Stream, Peer]):
    """One line for each kind that was delivered."""

    model = Stream
    fields = ["kind", "lag", "failures", "succeeded", "last_error", "failed"]
    readonly_fields = ["kind", "lag", "failures", "succeeded", "last_error", "failed"]
    verbose_name_plural = "streams"

    @admin.display(description="lag")
    def lag(self, stream: Stream) -> str:
        """How far the peer is behind."""
        return _lag(stream)

    @admin.display(description="last success")
    def succeeded(self, stream: Stream) -> str:
        """When something last arrived."""
        return shown_stamp(stream.last_success or None)

    @admin.display(description="last failure")
    def failed(self, stream: Stream) -> str:
        """When something last went wrong."""
        return shown_stamp(stream.last_error_at or None)


def _lag(stream: Stream) -> str:
    resource = registry.of_kind(stream.kind)
    if resource is None:
        return "not registered"
    behind = ticks_behind(resource, load_digest(resource), stream)
    if behind is None:
        return "not known"
    return "level" if behind == 0 else f"{behind} ticks behind"


@admin.register(Peer)
class PeerAdmin(ModelAdmin[Peer]):
    """The applications that this one keeps level with."""

    list_display = ["name", "lag", "state", "enabled", "immediate", "relay", "url"]
    list_filter = ["enabled", "immediate"]
    search_fields = ["name", "url"]
    actions = ["deliver_now", "catch_up_now"]
    inlines = [StreamInline]

    readonly_fields = ["existing_rows"]

    @admin.display(description="existing rows")
    def existing_rows(self, peer: Peer) -> SafeString | str:
        """The page where rows that both sides had before are linked."""
        if peer.pk is None or not any(type(resource).match_on for resource in registry):
            return "-"
        return format_html(
            '<a href="{}">Link them with ours</a>', reverse("admin:sdata_sync_peer_link", args=[peer.pk])
        )

    def get_urls(self) -> list[Any]:
        """Add the page for linking."""
        view = self.admin_site.admin_view(partial(link_page, self.admin_site))
        name = "sdata_sync_peer_link"
        return [
            path("<int:pk>/link/", view, name=name),
            path("<int:pk>/link/<str:kind>/", view, name=name),
            *super().get_urls(),
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Peer]:
        """Read the streams with their peers."""
        return super().get_queryset(request).prefetch_related("streams__peer")

    @admin.display(description="lag")
    def lag(self, peer: Peer) -> str:
        """How far the peer is behind, kind by kind."""
        return ", ".join(f"{stream.kind}: {_lag(stream)}" for stream in peer.streams.all()) or "not contacted yet"

    @admin.display(description="state")
    def state(self, peer: Peer) -> str:
        """What the last attempts came to."""
        if not peer.enabled:
            return "disabled"
        errors = [f"{stream.kind}: {stream.last_error}" for stream in peer.streams.all() if stream.last_error]
        return "; ".join(errors) or "ok"

    @admin.action(description="Catch up now, both ways", permissions=["change"])
    def catch_up_now(self, request: HttpRequest, queryset: QuerySet[Peer]) -> None:
        """Make good whatever was missed, while the page loads."""
        passed = catch_up(queryset, registry, directions=("pull", "push"), make_watch=lambda *_: Watch())
        for item in passed:
            text = f"{item.peer}, {item.kind}, {item.direction}: {item.error or f'{item.watch.entries} entries'}"
            self.message_user(request, text, messages.ERROR if item.error else messages.SUCCESS)

    @admin.action(description="Deliver now", permissions=["change"])
    def deliver_now(self, request: HttpRequest, queryset: QuerySet[Peer]) -> None:
        """Bring the selected peers level while the page loads."""
        for peer in queryset:
            with Courier(peer) as courier:
                due = courier.deliver(registry, impatient=True)
            if due is None:
                self.message_user(request, f"{peer} is level.", messages.SUCCESS)
                continue
            said = "; ".join(stream.last_error for stream in peer.streams.all() if stream.last_error)
            text = f"{peer} is not level: {said or 'somebody else is delivering to it'}"
            self.message_user(request, text, messages.ERROR)
