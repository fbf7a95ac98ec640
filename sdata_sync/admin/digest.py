"""The digest of each kind as one readable table."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from ..core.state import same_endpoint
from ..models import Digest, DigestEntry
from ..registry import registry
from .readonly import ReadOnlyAdmin, ReadOnlyInline, shown_stamp


class DigestEntryInline(ReadOnlyInline[DigestEntry, Digest]):
    """One line for each known endpoint."""

    model = DigestEntry
    fields = ["endpoint", "tick", "moved", "conflict_priority", "is_ours"]
    readonly_fields = ["endpoint", "tick", "moved", "conflict_priority", "is_ours"]
    verbose_name_plural = "entries: everything below the tick is taken into account here"

    @admin.display(description="moved")
    def moved(self, entry: DigestEntry) -> str:
        """When the tick last moved."""
        return shown_stamp(entry.stamp)

    @admin.display(description="this node", boolean=True)
    def is_ours(self, entry: DigestEntry) -> bool:
        """Whether it is the endpoint of this node."""
        resource = registry.of_kind(entry.digest_id)
        return resource is not None and same_endpoint(entry.endpoint.url, resource.endpoint)


@admin.register(Digest)
class DigestAdmin(ReadOnlyAdmin[Digest]):
    """The digests, one for each kind."""

    list_display = ["kind", "our_tick", "endpoints", "is_complete", "rejoined_at"]
    fields = ["kind", "is_complete", "rejoined_at", "rejoined_note"]
    inlines = [DigestEntryInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Digest]:
        """Read the entries with their digests."""
        return super().get_queryset(request).prefetch_related("entries__endpoint")

    @admin.display(description="our tick")
    def our_tick(self, digest: Digest) -> int | str:
        """The first tick that this node has not yet assigned."""
        resource = registry.of_kind(digest.kind)
        if resource is None:
            return "not registered"
        ticks = (e.tick for e in digest.entries.all() if same_endpoint(e.endpoint.url, resource.endpoint))
        return next(ticks, 1)

    @admin.display(description="known endpoints")
    def endpoints(self, digest: Digest) -> int:
        """How many endpoints are known."""
        return len(digest.entries.all())
