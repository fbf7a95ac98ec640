"""An inventory: all that a peer has of a kind, as it stands, whatever this node has of it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

from ..atom.entry import Entry
from ..atom.feed import read_sync_feed
from ..conf import conf
from ..core.digest import Digest
from ..exceptions import DocumentError, FeedError, PeerMisbehaved
from ..models import Peer
from ..resources import SyncResource
from ..sync.runs import new_run
from .client import PeerClient


def take_inventory(client: PeerClient, peer: Peer, resource: SyncResource) -> Iterator[list[Entry]]:
    """Yield the entries of all that ``peer`` has of ``resource``, tombstones included, page by page.

    Raises:
        PeerError
    """
    run = new_run(peer.url, conf.base_url)
    nothing = Digest(origin=resource.endpoint)
    feed = client.open_source(resource.kind, nothing, run=run, tracking_id=str(uuid4()), count=conf.catch_up_page_size)
    try:
        page = feed.first
        while True:
            with page as body:
                try:
                    reader = read_sync_feed(body)
                    entries = list(reader.entries())
                except (DocumentError, FeedError) as error:
                    raise PeerMisbehaved(f"A page of {peer}: {error}") from error
            feed.saw(len(entries))
            yield entries
            if not reader.next_url:
                return
            page = feed.following(reader.next_url)
    finally:
        feed.close()
