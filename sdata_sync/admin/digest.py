"""Show the digest of each kind as a table."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from ..core.state import same_endpoint
from ..models import Digest, DigestEntry
from ..registry import registry
from .readonly import ReadOnlyAdmin, ReadOnlyInline, shown_stamp


class DigestEntryInline(ReadOnlyInline[DigestEntry, Digest]):
    """List the digest entries of one kind, one line per endpoint."""

    model = DigestEntry
    fields = ["endpoint", "tick", "moved", "conflict_priority", "is_ours"]
    readonly_fields = ["endpoint", "tick", "moved", "conflict_priority", "is_ours"]
    verbose_name_plural = "entries: this node contains every change of the endpoint below the tick"

    @admin.display(description="tick moved at")
    def moved(self, entry: DigestEntry) -> str:
        """Return the time when the tick last moved."""
        return shown_stamp(entry.stamp)

    @admin.display(description="this node", boolean=True)
    def is_ours(self, entry: DigestEntry) -> bool:
        """Return True if the entry is that of this node's own endpoint."""
        kind = registry.of_kind(entry.digest_id)
        return kind is not None and same_endpoint(entry.endpoint.url, kind.endpoint)


@admin.register(Digest)
class DigestAdmin(ReadOnlyAdmin[Digest]):
    """List the digests of this node, one per kind."""

    list_display = ["kind", "our_tick", "endpoints", "is_complete", "rejoined_at"]
    fields = ["kind", "is_complete", "rejoined_at", "rejoined_note"]
    inlines = [DigestEntryInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Digest]:
        """Return the digests with their entries and endpoints prefetched."""
        return super().get_queryset(request).prefetch_related("entries__endpoint")

    @admin.display(description="tick of this node")
    def our_tick(self, digest: Digest) -> int | str:
        """Return the first tick that this node has not assigned yet."""
        kind = registry.of_kind(digest.kind)
        if kind is None:
            return "not registered"
        ticks = (e.tick for e in digest.entries.all() if same_endpoint(e.endpoint.url, kind.endpoint))
        return next(ticks, 1)

    @admin.display(description="known endpoints")
    def endpoints(self, digest: Digest) -> int:
        """Return the number of endpoints in the digest."""
        return len(digest.entries.all())
