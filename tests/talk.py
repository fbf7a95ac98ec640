"""What nodes that live in one process say to each other, and whether they are level then."""

from django.core.management import call_command

from sdata_sync.delivery.catchup import catch_up
from sdata_sync.delivery.progress import Progress
from sdata_sync.models import DeferredEntry, Peer, PendingReference, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.stamp.scan import scan


def push(here, there, kinds=None):
    return talk(here, there, ["push"], kinds)


def pull(here, there, kinds=None):
    return talk(here, there, ["pull"], kinds)


def talk(here, there, directions, kinds=None):
    resources = [r for r in registry if kinds is None or r.name in kinds]
    with here.at_work():
        peers = Peer.objects.filter(name=there.alias)
        passed = list(catch_up(peers, resources, directions=directions, make_progress=lambda *_: Progress()))
        errors = [p.error for p in passed if p.error]
        assert not errors, errors
        return {p.kind: p.progress for p in passed}


def run(node, capsys, *arguments):
    """Run a command at ``node``; return its exit status and its output."""
    status = 0
    with node.at_work():
        try:
            call_command(*arguments)
        except SystemExit as ended:
            status = int(ended.code or 0)
    return status, capsys.readouterr().out


def level(*nodes):
    """Nothing waits, and all have the same digests."""
    digests = []
    for node in nodes:
        with node.at_work():
            assert not DeferredEntry.objects.exists(), list(DeferredEntry.objects.all())
            assert not PendingReference.objects.exists()
            assert not TrackedResource.objects.filter(is_incomplete=True).exists()
            for resource in registry:
                assert scan(resource).total == 0, resource  # the contents are what they are tracked as
            digests.append({r.name: {e.endpoint: e.tick for e in load_digest(r).value if e.tick > 1} for r in registry})
    assert all(digest == digests[0] for digest in digests)
    return True
