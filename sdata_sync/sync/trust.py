"""Decide for whom the sender of a feed or a digest speaks, and how far its claims reach.

A document speaks for its *origin*, the endpoint in its digest. A login speaks for its own peer only; a login with the
permission ``carry_feeds`` carries the feeds of other endpoints, as an engine does. ``docs/explanation/trust.md`` has
the whole table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.db import router
from django.db.models import QuerySet

from ..core.state import same_endpoint
from ..exceptions import NotTrusted
from ..models import Peer
from .db.prepared import PreparedQuery, can_prepare

if TYPE_CHECKING:
    from ..core.digest import Digest
    from ..kind import Kind

#: The permission of an engine, which carries feeds between other endpoints.
CARRY_FEEDS = "sdata_sync.carry_feeds"


@cache
def _peers_query() -> PreparedQuery[Peer] | None:
    """Return the query for the peers of a login; ``None`` if the primary key of a login cannot be prepared."""
    pk = get_user_model()._meta.pk
    return PreparedQuery(_peers_of, pk) if can_prepare(pk) else None


def _peers_of(login: Any) -> QuerySet[Peer]:
    return Peer.objects.filter(user=login).order_by("name")


def _read_peers_of(login: Any) -> list[Peer]:
    query = _peers_query()
    return list(_peers_of(login)) if query is None else query.instances(router.db_for_read(Peer), Peer, login)


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Identify the sender of a document: the login of a request, or a peer that this node has asked.

    Attributes:
        name: the login or the peer, for messages.
        login: the primary key of the login, as text; empty for a peer that was asked.
        peers: the enabled peers that the sender belongs to.
        disabled: the names of the disabled peers that it belongs to.
        may_carry: the sender may deliver feeds of endpoints that are not its own.
    """

    name: str
    login: str = ""
    peers: tuple[Peer, ...] = ()
    disabled: tuple[str, ...] = ()
    may_carry: bool = False

    @classmethod
    def of_login(cls, user: Any) -> Sender:
        """Return the sender that has logged in as ``user`` (one query)."""
        found = _read_peers_of(user.pk)
        return cls(
            name=f"the login {user.get_username()!r}",
            login=str(user.pk),
            peers=tuple(peer for peer in found if peer.enabled),
            disabled=tuple(peer.name for peer in found if not peer.enabled),
            may_carry=user.has_perm(CARRY_FEEDS),
        )

    @classmethod
    def of_peer(cls, peer: Peer) -> Sender:
        """Return the sender of a document that this node has requested from ``peer``."""
        return cls(name=f"the peer {peer}", peers=(peer,))

    @property
    def peer(self) -> Peer | None:
        """Return the enabled peer that the sender belongs to, ``None`` if it belongs to none."""
        return self.peers[0] if self.peers else None

    def check_enabled(self) -> None:
        """Refuse a login that belongs to disabled peers only.

        Raises:
            NotTrusted: the login belongs to a disabled peer and to no enabled one.
        """
        if self.disabled and not self.peers:
            raise NotTrusted(f"The peer {self.disabled[0]} of this login is disabled at this node.")

    def speaker(self, kind: Kind, origin: str) -> Speaker:
        """Return whom the sender speaks for in a document with the digest's ``origin`` (at most one query).

        A document without an origin speaks for the only peer of its login.

        Raises:
            NotTrusted: ``origin`` is the endpoint of a peer that the sender does not belong to, or the sender belongs
                to another peer; and the sender may not carry feeds.
        """
        if not origin:
            peer = self.peers[0] if len(self.peers) == 1 else None
            origin = "" if peer is None else peer.endpoint(kind.name)
            return Speaker(origin=origin, peer=peer, is_carrier=self.may_carry, sender=self.name)
        peer = self._peer_at(origin)
        if peer is None:
            known = Peer.at(origin)
            if not self.may_carry:
                self._check_may_speak(origin, known)
            peer = known if known is not None and known.enabled else None
        return Speaker(origin=origin, peer=peer, is_carrier=self.may_carry, sender=self.name)

    def own_peer(self, origin: str) -> Peer | None:
        """Return the enabled peer at the endpoint ``origin`` if the sender is that peer, ``None`` otherwise.

        The sender is not that peer if it only may carry its feeds.
        """
        if (peer := self._peer_at(origin)) is not None:
            return peer
        known = None if self.peers else Peer.of_endpoint(origin)
        return known if known is not None and known.user_id is None else None

    def _peer_at(self, origin: str) -> Peer | None:
        """Return the enabled peer of the sender whose dataset URL is the parent of ``origin``."""
        dataset = origin.rpartition("/")[0]
        return next((peer for peer in self.peers if same_endpoint(dataset, peer.url)), None)

    def _check_may_speak(self, origin: str, known: Peer | None) -> None:
        carry = ", or give the login the permission carry_feeds, if it is an engine" if self.login else ""
        if self.peers:
            own = " and ".join(peer.url for peer in self.peers)
            raise NotTrusted(
                f"Expected from {self.name} an origin below {own}, received {origin!r}. Correct the BASE_URL of that "
                f"node or the URL of its peer at this node{carry}."
            )
        if known is not None and not known.enabled:
            raise NotTrusted(f"The peer {known}, which {origin!r} belongs to, is disabled at this node.")
        if known is not None and known.user_id is not None:
            raise NotTrusted(
                f"Expected the login of the peer {known}, which {origin!r} belongs to; received {self.name}. Set the "
                f"user of that peer to this login{carry}."
            )


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """Hold whom a document speaks for.

    Attributes:
        origin: the endpoint of the document's digest; empty if it has none and the sender belongs to no single peer.
        peer: the enabled peer at ``origin``, if the sender speaks for it.
        is_carrier: the sender may carry the feeds of other endpoints.
        sender: the name of the sender.
    """

    origin: str
    sender: str = ""
    peer: Peer | None = None
    is_carrier: bool = False

    @property
    def is_trusted(self) -> bool:
        """Return True if claims about other endpoints than ``origin`` are believed, within the bounds."""
        return self.peer is not None or self.is_carrier

    def filters_us(self, source: Digest) -> bool:
        """Return True if the speaker is the enabled peer that filters the kind for this node.

        Raises:
            NotTrusted: it says so of itself, but ``Peer.filters_us`` is not set.
        """
        if self.peer is None or not source.part_of or not same_endpoint(source.part_of, source.origin):
            return False
        if not self.peer.filters_us:
            raise NotTrusted(
                f"The peer {self.peer} gives this node a part of the rows only. The kind would then be exchanged with "
                f"no other peer. If that is agreed, set `may give a part` of the peer {self.peer} at this node."
            )
        return True


def sender_of_login(login: str) -> Sender:
    """Return the sender with the ``login`` of an operation (two queries).

    Raises:
        NotTrusted: the login was deleted or deactivated since, or its peer was disabled.
    """
    user = get_user_model()._default_manager.filter(pk=login, is_active=True).first()
    if user is None:
        raise NotTrusted("The login that began this operation does not exist any more.")
    sender = Sender.of_login(user)
    sender.check_enabled()
    return sender
