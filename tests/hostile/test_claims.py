"""Claims that cannot be true: about this node's own ticks, about other endpoints, about parts; and floods."""

import gzip
import random

import pytest
from django.core.management import call_command

from sdata_sync.core.state import MAX_TICK
from sdata_sync.delivery.session import PeerSession
from sdata_sync.models import ConflictRecord, Digest, DigestEntry, Endpoint, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..many_nodes import LocalNode, wired
from ..talk import level, pull, push
from ..wire import (
    APP1,
    APP2,
    APP3,
    FEED,
    PATH,
    UUIDS,
    diagnosis,
    digest_xml,
    entry_xml,
    feed_xml,
    post,
    results,
    ticks,
)

pytestmark = pytest.mark.django_db
ACCOUNTS = registry.of_model(Account)
FINE = "<name>fine</name>"
LEAP = 2**40
HUGE = [LEAP + 2, 2**62, MAX_TICK - 1, MAX_TICK]


def catch_up(client, *entries, digest, origin=APP1, next_url=""):
    feed = feed_xml(digest_xml(*digest, origin=origin), *entries, mode="catchUp", next_url=next_url)
    return results(post(client, feed))


@pytest.fixture
def peer(db):
    return Peer.objects.create(name="app1", url=APP1.rpartition("/")[0])


class TestOurOwnTicks:
    @pytest.mark.parametrize("tick", HUGE)
    @pytest.mark.parametrize("is_peer", [True, False])
    def test_an_entry_beyond_the_bound_is_refused_and_the_others_are_applied(self, peer_client, peer, tick, is_peer):
        Peer.objects.update(enabled=is_peer)
        said = catch_up(
            peer_client, entry_xml(UUIDS[0], APP1, 1, FINE), entry_xml(UUIDS[1], APP2, tick, FINE), digest=((APP1, 2),)
        )
        assert [(r.status, r.code) for r in said] == [(200, ""), (409, "ClaimLeftOut")]
        assert ticks(peer_client)[APP2] == 1
        Account.objects.create(name="goes on")
        assert ticks(peer_client)[APP2] == 2
        assert "tick" in Endpoint.objects.get(url=APP1).anomaly_note

    @pytest.mark.parametrize("tick", [*HUGE, MAX_TICK + 1])
    def test_a_digest_beyond_the_bound_is_left_out(self, peer_client, peer, tick):
        said = catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, FINE), digest=((APP1, 2), (APP2, tick)))
        assert [r.status for r in said] == [200]
        assert ticks(peer_client) == {APP1: 2, APP2: 1}

    def test_a_stranger_starts_no_restore(self, peer_client):
        Account.objects.create(name="a")
        said = catch_up(
            peer_client, entry_xml(UUIDS[0], APP2, 7, FINE), entry_xml(UUIDS[1], APP1, 1, FINE), digest=((APP2, 9),)
        )
        assert [r.status for r in said] == [409, 200]
        assert ticks(peer_client)[APP2] == 2
        assert Digest.objects.get(pk="accounts").gap_until is None

    def test_an_entry_of_an_enabled_peer_shows_a_restore_though_its_digest_does_not(self, peer_client, peer):
        Account.objects.create(name="since the backup")
        said = catch_up(peer_client, entry_xml(UUIDS[0], APP2, 7, "<name>lost</name>"), digest=((APP1, 2),))
        assert [r.status for r in said] == [200]
        assert ticks(peer_client)[APP2] == 9
        assert {a.name for a in Account.objects.all()} == {"since the backup", "lost"}
        assert sorted(TrackedResource.objects.values_list("tick", flat=True)) == [7, 8]

    @pytest.mark.parametrize("digest", [((APP1, 2), (APP2, 9)), ((APP1, 2),)])
    def test_an_immediate_feed_that_shows_a_restore_is_refused(self, peer_client, peer, digest):
        entry = entry_xml(UUIDS[0], APP2, 1, FINE)
        response = post(peer_client, feed_xml(digest_xml(*digest, origin=APP1), entry))
        assert (response.status_code, diagnosis(response)[0]) == (400, "Restored")

    @pytest.mark.parametrize("tick", HUGE)
    def test_an_immediate_feed_beyond_the_bound_is_applied_without_the_claim(self, peer_client, tick):
        feed = feed_xml(digest_xml((APP1, 2), (APP2, tick)), entry_xml(UUIDS[0], APP1, 1, FINE))
        assert [r.status for r in results(post(peer_client, feed))] == [200]
        assert ticks(peer_client)[APP2] == 1


class TestOtherEndpoints:
    @pytest.mark.parametrize("tick", [LEAP + 2, 2**62, MAX_TICK, MAX_TICK + 1])
    def test_a_claim_beyond_the_bound_is_left_out(self, peer_client, tick):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, FINE), digest=((APP1, 2), (APP3, tick)))
        assert ticks(peer_client) == {APP1: 2, APP2: 1}
        assert APP3 in Endpoint.objects.get(url=APP1).anomaly_note

    def test_a_claim_within_the_bound_is_believed_and_does_not_add_up(self, peer_client):
        catch_up(peer_client, digest=((APP1, 2), (APP3, LEAP)))
        assert ticks(peer_client)[APP3] == LEAP
        catch_up(peer_client, digest=((APP1, 2), (APP3, 2 * LEAP)))
        assert ticks(peer_client)[APP3] == LEAP

    def test_a_version_of_a_claimed_tick_is_applied_when_the_endpoint_brings_it(self, peer_client):
        catch_up(peer_client, digest=((APP1, 2), (APP3, LEAP)))
        feed = feed_xml(digest_xml((APP3, 2), origin=APP3), entry_xml(UUIDS[0], APP3, 1, FINE))
        [said] = results(post(peer_client, feed))
        assert (said.status, said.message) == (200, "OK")
        assert Account.objects.get().name == "fine"
        [said] = results(post(peer_client, feed))
        assert said.message == "Unchanged"

    def test_a_concurrent_one_is_decided_by_the_stamps(self, peer_client):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>of 1</name>"), digest=((APP1, 2), (APP3, LEAP)))
        later = entry_xml(UUIDS[0], APP3, 1, "<name>of 3</name>", stamp="2020-01-01T00:00:00Z")
        feed = feed_xml(digest_xml((APP3, 2, 9), origin=APP3), later)
        assert [r.status for r in results(post(peer_client, feed))] == [200]
        assert Account.objects.get().name == "of 3"
        assert "of 1" in ConflictRecord.objects.get().local_payload

    def test_a_tombstone_that_was_purged_does_not_come_back(self, peer_client):
        sent = feed_xml(digest_xml((APP1, 2), origin=APP1), entry_xml(UUIDS[0], APP1, 1, FINE))
        results(post(peer_client, sent))
        gone = entry_xml(UUIDS[0], APP1, 2, deleted=True)
        results(post(peer_client, feed_xml(digest_xml((APP1, 3), origin=APP1), gone)))
        call_command("sync_purge")
        assert not TrackedResource.objects.exists()
        [said] = results(post(peer_client, sent))
        assert said.message == "Unchanged"
        assert not Account.objects.exists()

    @pytest.mark.parametrize("number", range(60))
    def test_whatever_is_claimed_nothing_fails_and_saves_go_on(self, peer_client, peer, number):
        """Random digests and entries: every endpoint with every tick, in both modes, from a peer and from a stranger."""
        chance = random.Random(number)
        for _ in range(6):
            some = [0, 1, 2, 3, 50, LEAP - 1, LEAP, LEAP + 1, 2 * LEAP, 2**62, MAX_TICK - 1, MAX_TICK]
            origin = chance.choice([APP1, APP3, ""])
            digest = [(e, chance.choice([*some, MAX_TICK + 1])) for e in (APP1, APP2, APP3) if chance.random() < 0.7]
            entries = sorted(
                ((chance.choice([APP1, APP2, APP3]), chance.choice(some)) for _ in range(chance.randrange(4))),
            )
            entries = [e for n, e in enumerate(entries) if e not in entries[:n]]
            feed = feed_xml(
                digest_xml(*digest, origin=origin),
                *(entry_xml(chance.choice(UUIDS[:4]), e, t, FINE, deleted=chance.random() < 0.3) for e, t in entries),
                mode=chance.choice(["immediate", "catchUp"]),
                next_url=chance.choice(["", "more"]),
            )
            response = post(peer_client, feed)
            assert response.status_code in (200, 400), response.content
            before = load_digest(ACCOUNTS).value.tick(APP2)
            assert before <= 3 * LEAP
            Account.objects.create(name="goes on")
            assert peer_client.get(f"{PATH}/$syncDigest").status_code == 200
            source = peer_client.post(
                f"{PATH}/$syncSource", data=put_body(), content_type="application/atom+xml; type=entry"
            )
            assert source.status_code == 200
        Digest.objects.update(gap_since=None, gap_until=None)
        assert ticks(peer_client)[APP2] > 6


def put_body():
    from ..wire import digest_entry

    return digest_entry(origin=APP3)


class TestParts:
    def test_a_stranger_makes_no_part_of_ours(self, peer_client):
        digest = digest_xml((APP1, 2), origin=APP1).replace(
            "<digest ", f'<digest xmlns:dss="urn:django-sdata-sync" dss:partOf="{APP1}" '
        )
        assert results(post(peer_client, feed_xml(digest, mode="catchUp"))) == []
        assert load_digest(ACCOUNTS).value.part_of == ""

    def test_a_stranger_withdraws_nothing(self, peer_client):
        results(post(peer_client, feed_xml(digest_xml((APP1, 2), origin=APP1), entry_xml(UUIDS[0], APP1, 1, FINE))))
        gone = entry_xml(UUIDS[0], APP1, 2, deleted=True).replace(
            "sdata:isDeleted", 'xmlns:dss="urn:django-sdata-sync" dss:withdrawn="true" sdata:isDeleted'
        )
        [said] = results(post(peer_client, feed_xml(digest_xml((APP1, 3), origin=APP1), gone)))
        assert (said.status, said.code) == (403, "NotTrusted")
        assert Account.objects.exists()


class TestFloods:
    def test_a_digest_of_too_many_endpoints_is_refused(self, peer_client, settings):
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "MAX_ENDPOINTS": 5}
        digest = digest_xml(*((f"http://x{n}/a/b/-/accounts", 2) for n in range(9)), origin=APP1)
        response = post(peer_client, feed_xml(digest, mode="catchUp"))
        assert response.status_code == 400
        assert b"MAX_ENDPOINTS" in response.content

    def test_no_more_endpoints_are_taken_over_than_the_setting_says(self, peer_client, settings):
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "MAX_ENDPOINTS": 5}
        for number in range(4):
            names = [(f"http://x{number}.{n}/a/b/-/accounts", 2) for n in range(3)]
            catch_up(peer_client, entry_xml(UUIDS[number], APP1, number + 1, FINE), digest=((APP1, 9), *names))
        assert Account.objects.count() == 4
        assert DigestEntry.objects.count() <= 5 + 2

    def test_what_is_forgotten_comes_back_with_a_version_only(self, peer_client):
        strange = "http://x/a/b/-/accounts"
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, FINE), digest=((APP1, 2), (strange, 5)))
        call_command("sync_purge", "--endpoints")
        assert set(ticks(peer_client)) == {APP1, APP2}
        catch_up(peer_client, digest=((APP1, 2), (strange, 6)))
        assert set(ticks(peer_client)) == {APP1, APP2}
        catch_up(peer_client, entry_xml(UUIDS[1], strange, 3, FINE), digest=((APP1, 2), (strange, 6)))
        assert ticks(peer_client)[strange] == 4

    def test_an_entry_of_millions_of_elements_is_refused_at_once(self, peer_client):
        feed = feed_xml(digest_xml((APP1, 9)), entry_xml(UUIDS[0], APP1, 1, "<sdata:a/>" * 700_000))
        response = peer_client.post(
            f"{PATH}/$syncTarget",
            data=gzip.compress(feed.encode()),
            content_type=FEED,
            headers={"Content-Encoding": "gzip"},
        )
        assert (response.status_code, diagnosis(response)[0]) == (400, "TooManyElements")

    def test_many_elements_of_a_namespace_of_the_feed_are_read(self, peer_client):
        feed = feed_xml(digest_xml((APP1, 9)), entry_xml(UUIDS[0], APP1, 1, FINE + "<sdata:a/>" * 90_000))
        assert [r.status for r in results(post(peer_client, feed))] == [200]


@pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"])
@pytest.mark.xdist_group("claims")
class TestTheWayBack:
    """Three nodes that were poisoned before claims were bounded."""

    @pytest.fixture
    def nodes(self, monkeypatch):
        nodes = [LocalNode(number) for number in range(3)]
        with wired(nodes, monkeypatch):
            for node in nodes:
                node.reset([other for other in nodes if other is not node])
            yield nodes

    def poison(self, node, victim, tick):
        with node.at_work():
            DigestEntry.objects.filter(endpoint__key=f"{victim.base_url}/accounts".lower()).update(tick=tick)

    @pytest.mark.parametrize("tick", [2**62, MAX_TICK + 1])
    def test_renumbered_and_confirmed(self, nodes, tick):
        victim, second, third = nodes
        with victim.at_work():
            Account.objects.create(name="before")
        for other in (second, third):
            push(victim, other)
            pull(victim, other)
        for node in nodes:
            self.poison(node, victim, tick)
        with victim.at_work():
            call_command("sync_rejoin", "--renumber")
            Account.objects.create(name="after")
            assert load_digest(ACCOUNTS).value.tick(ACCOUNTS.endpoint) < 2**40
            # Nothing is said to have arrived while the others take it for known.
            with pytest.raises(SystemExit):
                call_command("sync_catchup", "--push")
        for other in (second, third):
            with other.at_work():
                call_command("sync_rejoin", "--confirm", victim.alias)
        for _ in range(2):
            for here in nodes:
                for there in nodes:
                    if here is not there:
                        push(here, there)
                        pull(here, there)
        for node in nodes:
            with node.at_work():
                assert set(Account.objects.values_list("name", flat=True)) == {"before", "after"}
        assert level(*nodes)

    def test_a_version_that_was_given_out_of_reach_is_given_a_new_tick(self, nodes):
        victim, second, _ = nodes
        with victim.at_work():
            Account.objects.create(name="a")
            assign_ticks(ACCOUNTS)
        self.poison(victim, victim, 2**62)
        with victim.at_work():
            account = Account.objects.get()
            account.city = "York"
            account.save()
            assign_ticks(ACCOUNTS)
            assert TrackedResource.objects.get().tick == 2**62
            call_command("sync_rejoin", "--renumber")
            assert TrackedResource.objects.get().tick < 2**40
        push(victim, second)
        with second.at_work():
            assert Account.objects.get().city == "York"

    def test_a_peer_that_does_not_answer_is_named(self, nodes, capsys):
        victim, second, _ = nodes
        with victim.at_work():
            Peer.objects.filter(name=second.alias).update(credentials="nobody")
            with pytest.raises(SystemExit):
                call_command("sync_rejoin", "--renumber")
        assert f"{second.alias}: not asked" in capsys.readouterr().out

    def test_a_claim_within_the_bound_heals_by_itself(self, nodes):
        victim, second, _ = nodes
        with victim.at_work():
            Account.objects.create(name="before")
        push(victim, second)
        self.poison(second, victim, LEAP)
        with victim.at_work():
            account = Account.objects.get()
            account.city = "York"
            account.save()
            with PeerSession(Peer.objects.get(name=second.alias)) as session:
                session.deliver([ACCOUNTS], impatient=True)
                session.deliver([ACCOUNTS], impatient=True)
        with second.at_work():
            assert Account.objects.get().city == "York"
        with victim.at_work():
            assert load_digest(ACCOUNTS).value.tick(ACCOUNTS.endpoint) > LEAP
