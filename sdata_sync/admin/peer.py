"""Show peers with the state of their streams, and offer the actions "deliver now" and "catch up now"."""

from functools import partial
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ..conf import conf
from ..delivery.catchup import catch_up
from ..delivery.monitoring.status import collect_status, ticks_behind
from ..delivery.progress import Progress
from ..delivery.session import PeerSession
from ..models import Peer, Stream
from ..registry import registry
from ..sync.log.digests import load_digest
from .link import link_page
from .readonly import ModelAdmin, ReadOnlyInline, shown_stamp


class StreamInline(ReadOnlyInline[Stream, Peer]):
    """List the streams of one peer, one line per kind."""

    model = Stream
    fields = ["kind", "lag", "failures", "succeeded", "last_error", "failed"]
    readonly_fields = ["kind", "lag", "failures", "succeeded", "last_error", "failed"]
    verbose_name_plural = "streams"

    @admin.display(description="lag")
    def lag(self, stream: Stream) -> str:
        """Return the number of ticks that the peer lacks."""
        return _lag(stream)

    @admin.display(description="last success")
    def succeeded(self, stream: Stream) -> str:
        """Return the time of the last successful delivery."""
        return shown_stamp(stream.last_success or None)

    @admin.display(description="last failure")
    def failed(self, stream: Stream) -> str:
        """Return the time of the last failed delivery."""
        return shown_stamp(stream.last_error_at or None)


def _lag(stream: Stream) -> str:
    kind = registry.of_kind(stream.kind)
    if kind is None:
        return "not registered"
    if stream.is_shared is False:
        return "not shared"
    behind = ticks_behind(kind, load_digest(kind), stream)
    if behind is None:
        return "not known"
    text = f"{behind} ticks behind"
    waiting = "1 entry waits there" if stream.waiting == 1 else f"{stream.waiting} entries wait there"
    return f"{text}, {waiting}" if stream.waiting else text


@admin.register(Peer)
class PeerAdmin(ModelAdmin[Peer]):
    """List and edit the peers of this node."""

    list_display = ["name", "lag", "state", "enabled", "immediate", "relay", "url"]
    list_filter = ["enabled", "immediate"]
    search_fields = ["name", "url"]
    actions = ["deliver_now", "catch_up_now"]
    inlines = [StreamInline]

    readonly_fields = ["existing_rows"]

    @admin.display(description="existing rows")
    def existing_rows(self, peer: Peer) -> SafeString | str:
        """Return a link to the page that links rows which both nodes had before they exchanged changes."""
        if peer.pk is None or not any(type(kind.declared).match_on for kind in registry):
            return "-"
        return format_html(
            '<a href="{}">Link them with rows of this node</a>', reverse("admin:sdata_sync_peer_link", args=[peer.pk])
        )

    def get_urls(self) -> list[Any]:
        """Return the URLs of the admin with those of the link page added."""
        view = self.admin_site.admin_view(partial(link_page, self.admin_site))
        name = "sdata_sync_peer_link"
        return [
            path("<int:pk>/link/", view, name=name),
            path("<int:pk>/link/<str:kind_name>/", view, name=name),
            *super().get_urls(),
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Peer]:
        """Return the peers with their streams prefetched."""
        return super().get_queryset(request).prefetch_related("streams__peer")

    @admin.display(description="lag")
    def lag(self, peer: Peer) -> str:
        """Return the number of ticks that the peer lacks, for each kind."""
        return ", ".join(f"{stream.kind}: {_lag(stream)}" for stream in peer.streams.all()) or "not contacted yet"

    @admin.display(description="state")
    def state(self, peer: Peer) -> str:
        """Return the last errors of the peer's streams, else how many entries wait there, else "no error"."""
        if not peer.enabled:
            return "disabled"
        errors = [f"{stream.kind}: {stream.last_error}" for stream in peer.streams.all() if stream.last_error]
        waiting = sum(stream.waiting for stream in peer.streams.all())
        return "; ".join(errors) or (f"{waiting} waiting there" if waiting else "no error")

    @admin.action(description="Catch up now, in both directions", permissions=["change"])
    def catch_up_now(self, request: HttpRequest, queryset: QuerySet[Peer]) -> None:
        """Pull and push all missing changes of the selected peers during the request."""
        passed = catch_up(
            self._enabled(request, queryset), registry, directions=("pull", "push"), make_progress=lambda *_: Progress()
        )
        for item in passed:
            text = f"{item.peer}, {item.kind}, {item.direction}: {item.outcome}, {item.progress.entries} entries"
            self.message_user(request, text, messages.SUCCESS if item.is_in_sync else messages.ERROR)

    @admin.action(description="Deliver now", permissions=["change"])
    def deliver_now(self, request: HttpRequest, queryset: QuerySet[Peer]) -> None:
        """Deliver to the selected peers during the request, until they are in sync."""
        for peer in self._enabled(request, queryset):
            with PeerSession(peer) as session:
                due = session.deliver(registry, impatient=True)
            problems = collect_status(conf.base_url).problems_with(peer.name)
            if due is None and not problems:
                self.message_user(request, f"{peer} is in sync.", messages.SUCCESS)
                continue
            text = f"{peer} is not in sync: {'; '.join(problems) or 'another process is delivering to it'}"
            self.message_user(request, text, messages.ERROR)

    def _enabled(self, request: HttpRequest, queryset: QuerySet[Peer]) -> list[Peer]:
        """Return the selected peers that are enabled; warn the user of each disabled peer."""
        for peer in queryset.filter(enabled=False):
            self.message_user(request, f"{peer} is disabled: nothing was exchanged with it.", messages.WARNING)
        return list(queryset.filter(enabled=True))
