"""What a peer may have of a resource."""

from __future__ import annotations

from typing import Any

from django.db import models

from ..models import Peer
from ..resources import SyncResource


def is_filtered(resource: SyncResource) -> bool:
    """Tell whether a resource may show different rows to different peers."""
    return type(resource).queryset_for is not SyncResource.queryset_for


def scope_of(resource: SyncResource, peer: Peer | None) -> models.QuerySet[Any] | None:
    """Return the rows that ``peer`` may have, past the model's managers; ``None`` for all of them."""
    return resource.queryset_for(peer) if is_filtered(resource) else None


def peer_of(user: Any) -> Peer | None:
    """Return the peer that logs in as ``user``, ``None`` if it is nobody's user."""
    return Peer.objects.filter(user=user.pk).first() if user is not None and user.is_authenticated else None
