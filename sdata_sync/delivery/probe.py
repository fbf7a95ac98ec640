"""Ask a peer whether changes can be exchanged with it.

It is asked whether it can be reached, for the login and its permissions, for the kinds, properties and names on both
sides, and for its clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from ..conf import conf
from ..core.state import same_endpoint
from ..exceptions import KindNotShared, PeerError, PeerRefused, PeerUnreachable
from ..models import Peer, TrackedResource
from ..registry import registry
from .client import PeerClient

if TYPE_CHECKING:
    from ..kind import Kind


@dataclass
class Probe:
    """The answers of a peer: the kinds that it shares and that it does not have, and what is wrong.

    ``problems`` prevent an exchange, with what to do. ``differences`` do not: properties that one side does not have.
    """

    shared: list[str] = field(default_factory=list)
    not_shared: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the answers as plain values for JSON."""
        return asdict(self)


def probe(peer: Peer, kinds: Iterable[Kind]) -> Probe:
    """Ask ``peer`` about each of ``kinds`` (network), and return what was found."""
    kinds = list(kinds)
    found = Probe(problems=_unapplied_migrations(kinds))
    try:
        with PeerClient.for_peer(peer) as client:
            for kind in kinds:
                _ask(client, peer, kind, found)
            found.problems += _clock(client, peer)
            shared = [kind for kind in kinds if kind.name in found.shared]
            found.differences += schema_differences(client, peer, shared)
            for kind in [kind for kind in shared if kind.is_source][:1]:
                client.check_push(kind.name)
    except PeerError as error:
        found.problems.append(_advised(peer, error))
    if found.not_shared and not (found.shared or found.problems):
        found.problems.append(has_no_kind(peer))
    return found


def has_no_kind(peer: Peer) -> str:
    """Return what to do if ``peer`` has none of the kinds of this node."""
    return f"{peer} has none of the kinds of this node. Check that {peer.url} is the URL of its dataset, its BASE_URL."


def _unapplied_migrations(kinds: Iterable[Kind]) -> list[str]:
    labels: dict[str, set[str]] = {}
    for kind in kinds:
        labels.setdefault(kind.database, {TrackedResource._meta.app_label}).add(kind.model._meta.app_label)
    problems = []
    for alias, apps in labels.items():
        executor = MigrationExecutor(connections[alias])
        targets = [node for node in executor.loader.graph.leaf_nodes() if node[0] in apps]
        missing = [f"{migration.app_label}.{migration.name}" for migration, _ in executor.migration_plan(targets)]
        if missing:
            problems.append(f"The database {alias!r} lacks the migrations {', '.join(missing)}. Run: manage.py migrate")
    return problems


def _ask(client: PeerClient, peer: Peer, kind: Kind, found: Probe) -> None:
    try:
        shown = client.read_digest(kind.name)
    except KindNotShared:
        found.not_shared.append(kind.name)
        return
    found.shared.append(kind.name)
    theirs = peer.endpoint(kind.name)
    if shown.origin and same_endpoint(shown.origin, kind.endpoint):
        found.problems.append(
            f"{peer} calls itself {shown.origin}, as this node does. Give each node its own BASE_URL."
        )
    elif shown.origin and not same_endpoint(shown.origin, theirs):
        url = shown.origin.rpartition("/")[0]
        found.problems.append(f"{theirs} calls itself {shown.origin}. Remove the peer and add it as {url}.")


def _clock(client: PeerClient, peer: Peer) -> list[str]:
    ahead = client.ahead_seconds
    if ahead is None or abs(ahead) <= max(conf.max_clock_skew_seconds, 2.0):  # the header has whole seconds
        return []
    side = "ahead of" if ahead > 0 else "behind"
    return [
        f"The clock of {peer} is {abs(ahead):.0f} s {side} the clock of this node. Conflicts are decided by the time "
        "of the changes: let both nodes set their clocks by NTP."
    ]


def schema_differences(client: PeerClient, peer: Peer, kinds: Sequence[Kind]) -> list[str]:
    """Return which properties of ``kinds`` only one of both sides has, by the peer's ``$schema`` (network).

    A peer without ``$schema``, or a kind that it does not describe, has no differences. Kinds with the same element are
    not compared, because the schema does not tell them apart.
    """
    elements = Counter((kind.namespace, kind.element_name) for kind in registry)
    schemas: dict[str, dict[str, frozenset[str]]] = {}
    differences = []
    for kind in kinds:
        if elements[kind.namespace, kind.element_name] > 1:
            continue
        if kind.namespace not in schemas:
            try:
                schemas[kind.namespace] = client.read_schema(kind.namespace)
            except PeerRefused:
                schemas[kind.namespace] = {}
        theirs = schemas[kind.namespace].get(kind.element_name)
        if theirs is not None:
            differences += _differences(peer, kind, theirs)
    return differences


def _differences(peer: Peer, kind: Kind, theirs: frozenset[str]) -> list[str]:
    ours = frozenset(kind.property_names)
    by_letters = {_letters(name): name for name in theirs - ours}
    said = []
    unknown_there = []
    for name in sorted(ours - theirs):
        other = by_letters.pop(_letters(name), None)
        if other is None:
            unknown_there.append(name)
        else:
            said.append(
                f"{kind.name}: what is {name} here is {other} at {peer}, so its values are not exchanged. "
                f"Set `field_names` of the resource to the name of the peer."
            )
    if unknown_there:
        said.append(f"{kind.name}: {peer} does not have {', '.join(unknown_there)}; it does not show these values.")
    if unknown_here := sorted(by_letters.values()):
        said.append(f"{kind.name}: only {peer} has {', '.join(unknown_here)}; this node keeps the values unseen.")
    return said


def _letters(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _advised(peer: Peer, error: PeerError) -> str:
    if isinstance(error, PeerUnreachable):
        return f"{str(error).rstrip('.')}. Check the URL, the network, and that the server of the peer runs."
    status = error.status if isinstance(error, PeerRefused) else 0
    if status == 401:
        return f"{error} Check the entry {peer.credentials!r} of CREDENTIALS at this node, and the user at the peer."
    if status == 403:
        return f"{error} Give the user of this node the permissions sdata_sync.read_feeds and push_feeds at the peer."
    return str(error)
