"""What becomes of the entries that arrive."""

import pytest
from django.db import OperationalError
from django.db.models.signals import post_save, pre_save

import sdata_sync
from sdata_sync.atom.text import parse_stamp
from sdata_sync.core.digest import Digest
from sdata_sync.models import DeferredEntry, Endpoint, Peer, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.select.changes import prepare_page
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..shapes.models import Coupon, Restaurant, Shouting, Stamped
from ..wire import (
    APP1,
    APP2,
    APP3,
    LATER,
    PATH,
    UUIDS,
    digest_xml,
    entry_xml,
    feed_xml,
    post,
    put_digest,
    results,
    ticks,
)

pytestmark = pytest.mark.django_db
ACCOUNTS = registry.of_model(Account)


def catch_up(client, *entries, digest=((APP1, 100),), path=PATH, next_url="more", origin=""):
    """Post one page; not the last one, unless it is said."""
    feed = feed_xml(digest_xml(*digest, origin=origin), *entries, mode="catchUp", next_url=next_url)
    return results(post(client, feed, path=path))


def sent_on(resource=ACCOUNTS) -> list[str]:
    """The entries that a third node would get, which knows nothing."""
    return prepare_page(resource, assign_ticks(resource), Digest(), limit=1000).entries


def tracked(uuid=UUIDS[0]) -> TrackedResource:
    return TrackedResource.objects.get(uuid=uuid)


class TestVersions:
    def test_create_update_delete(self, peer_client):
        [created] = catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>a</name><city>x</city>", user="jane"))
        assert (created.status, created.message) == (200, "OK")
        account = Account.objects.get()
        assert (account.name, account.city) == ("a", "x")
        assert tracked().user == "jane"
        [updated] = catch_up(peer_client, entry_xml(UUIDS[0], APP1, 2, "<name>b</name>"))
        assert updated.status == 200
        account.refresh_from_db()
        assert (account.name, account.city) == ("b", "x"), "what a payload lacks is left as it is"
        [deleted] = catch_up(peer_client, entry_xml(UUIDS[0], APP1, 3, deleted=True))
        assert deleted.status == 200
        assert not Account.objects.exists()
        assert tracked().is_deleted
        [revived] = catch_up(peer_client, entry_xml(UUIDS[0], APP1, 4, "<name>c</name>"))
        assert revived.status == 200
        assert [a.name for a in Account.objects.all()] == ["c"]

    def test_applying_is_not_changing(self, peer_client):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>a</name>"))
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 2, "<name>b</name>"))
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 3, deleted=True))
        assert ticks(peer_client)[APP2] == 1
        assert not TrackedResource.objects.filter(mark__isnull=False).exists()

    def test_a_deletion_of_one_unknown_leaves_a_tombstone(self, peer_client):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, deleted=True))
        assert tracked().is_deleted
        assert 'sdata:isDeleted="true"' in sent_on()[0]

    def test_a_null_is_applied(self, peer_client):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>a</name><creditLimit>5</creditLimit>"))
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 2, '<name>a</name><creditLimit xsi:nil="true"/>'))
        assert Account.objects.get().credit_limit is None

    def test_two_versions_of_one_resource_in_one_page(self, peer_client):
        said = catch_up(
            peer_client,
            entry_xml(UUIDS[0], APP1, 1, "<name>a</name>"),
            entry_xml(UUIDS[1], APP1, 2, "<name>other</name>"),
            entry_xml(UUIDS[0], APP1, 3, "<name>b</name>"),
        )
        assert [r.status for r in said] == [200, 200, 200]
        assert {a.name for a in Account.objects.all()} == {"b", "other"}

    def test_results_come_in_the_order_of_the_entries(self, peer_client):
        entries = [entry_xml(UUIDS[n], APP1, n + 1, f"<name>{'x' * (300 if n == 1 else 3)}</name>") for n in range(3)]
        assert [r.status for r in catch_up(peer_client, *entries)] == [200, 202, 200]

    def test_elements_that_are_not_known_here_are_kept_and_sent_on(self, peer_client):
        catch_up(
            peer_client,
            entry_xml(UUIDS[0], APP1, 1, '<name>a</name><mood xmlns:q="urn:q" q:since="2008">blue</mood>'),
        )
        assert 'q:since="2008">blue</mood>' in sent_on()[0]
        account = Account.objects.get()
        account.name = "b"
        account.save()
        [entry] = sent_on()
        assert "<name>b</name>" in entry
        assert ">blue</mood>" in entry


class TestDigestAfterwards:
    def test_only_the_last_page_takes_over_the_sources_digest(self, peer_client):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 5, "<name>a</name>"), next_url="more")
        assert ticks(peer_client) == {APP1: 6, APP2: 1}
        catch_up(peer_client, digest=((APP1, 100), (APP3, 9)), next_url="")
        assert ticks(peer_client) == {APP1: 100, APP2: 1, APP3: 9}

    def test_an_immediate_feed_never_does(self, peer_client):
        put_digest(peer_client, (APP1, 5))
        post(
            peer_client,
            feed_xml(digest_xml((APP1, 100), (APP3, 9)), entry_xml(UUIDS[0], APP1, 5, "<name>a</name>")),
        )
        assert ticks(peer_client) == {APP1: 6, APP2: 1}

    def test_the_result_feed_carries_it(self, peer_client):
        from ..wire import ticks_in

        response = post(peer_client, feed_xml(digest_xml((APP1, 2)), entry_xml(UUIDS[0], APP1, 1, "<name>a</name>")))
        assert ticks_in(response.content) == {APP1: 2, APP2: 1}
        assert b'rel="next"' not in response.content

    def test_our_own_tick_seen_higher_elsewhere_is_taken_and_said(self, peer_client, caplog):
        Account.objects.create(name="a")
        Peer.objects.create(name="app1", url=APP1.rpartition("/")[0])
        catch_up(peer_client, digest=((APP1, 1), (APP2, 50)), next_url="", origin=APP1)
        assert "restored from a backup" in caplog.text
        assert ticks(peer_client)[APP2] == 51, "what was not numbered yet got the first tick that nobody has seen"


class TestConflicts:
    def local(self, peer_client, priority) -> Account:
        """An account that came from elsewhere and was then edited here."""
        put_digest(peer_client, (APP1, 1, priority))
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>a</name>"), digest=((APP1, 2, priority),))
        account = Account.objects.get()
        account.name = "local"
        account.save()
        assert ticks(peer_client)[APP2] == 2
        return account

    def remote(self, peer_client, priority, *, stamp, name="remote", deleted=False, known=1):
        inner = "" if deleted else f"<name>{name}</name>"
        entry = entry_xml(UUIDS[0], APP1, 2, inner, stamp=stamp, deleted=deleted)
        return catch_up(peer_client, entry, digest=((APP1, 3, priority), (APP2, known)))[0]

    def test_the_later_stamp_wins(self, peer_client):
        account = self.local(peer_client, 5)
        said = self.remote(peer_client, 5, stamp="2008-01-01T00:00:00Z")
        assert (said.status, said.code) == (409, "ConflictLost")
        account.refresh_from_db()
        assert account.name == "local"
        assert ticks(peer_client) == {APP1: 3, APP2: 2}

    def test_the_later_stamp_of_the_other_side_wins(self, peer_client):
        account = self.local(peer_client, 5)
        assert self.remote(peer_client, 5, stamp=LATER).status == 200
        account.refresh_from_db()
        assert account.name == "remote"
        assert (tracked().endpoint.url, tracked().tick) == (APP1, 2)

    def test_priority_over_a_later_stamp_is_recorded_as_a_change_of_ours(self, peer_client):
        account = self.local(peer_client, 1)
        before = tracked().stamp
        assert self.remote(peer_client, 1, stamp="2008-01-01T00:00:00Z").status == 200
        account.refresh_from_db()
        assert account.name == "remote"
        assert (tracked().endpoint.url, tracked().tick) == (APP2, 2)
        assert tracked().stamp > before
        assert ticks(peer_client) == {APP1: 3, APP2: 3}
        assert "<name>remote</name>" in sent_on()[0]

    def test_so_is_our_own_priority_over_a_later_stamp(self, peer_client):
        self.local(peer_client, 9)
        assert self.remote(peer_client, 9, stamp=LATER).status == 409
        assert (tracked().endpoint.url, tracked().tick) == (APP2, 2)
        assert tracked().stamp > parse_stamp(LATER)
        assert "<name>local</name>" in sent_on()[0]

    def test_equal_content_is_no_conflict(self, peer_client):
        self.local(peer_client, 1)
        said = self.remote(peer_client, 1, stamp="2008-01-01T00:00:00Z", name="local")
        assert (said.status, said.message) == (200, "Unchanged")
        assert ticks(peer_client) == {APP1: 3, APP2: 2}

    def test_knowledge_beats_stamps(self, peer_client):
        account = self.local(peer_client, 5)
        assert self.remote(peer_client, 5, stamp="2008-01-01T00:00:00Z", known=2).status == 200
        account.refresh_from_db()
        assert account.name == "remote"

    def test_a_deletion_may_win(self, peer_client):
        self.local(peer_client, 5)
        assert self.remote(peer_client, 5, stamp=LATER, deleted=True).status == 200
        assert not Account.objects.exists()

    def test_a_deletion_may_lose(self, peer_client):
        self.local(peer_client, 5)
        assert self.remote(peer_client, 5, stamp="2008-01-01T00:00:00Z", deleted=True).status == 409
        assert Account.objects.get().name == "local"

    def test_an_edit_may_lose_to_our_deletion(self, peer_client):
        self.local(peer_client, 5).delete()
        assert self.remote(peer_client, 5, stamp="2008-01-01T00:00:00Z").status == 409
        assert not Account.objects.exists()

    def test_an_edit_may_bring_back_what_was_deleted_here(self, peer_client):
        self.local(peer_client, 5).delete()
        assert self.remote(peer_client, 5, stamp=LATER).status == 200
        assert Account.objects.get().name == "remote"

    def test_an_edit_that_is_not_numbered_yet_is_seen(self, peer_client):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>a</name>"))
        account = Account.objects.get()
        account.name = "local"
        account.save()
        assert self.remote(peer_client, 5, stamp="2008-01-01T00:00:00Z").status == 409
        account.refresh_from_db()
        assert account.name == "local"

    def test_an_edit_that_is_held_back_is_seen(self, peer_client):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>a</name>"))
        account = Account.objects.get()
        account.name = "\x07"
        account.save()
        assert self.remote(peer_client, 5, stamp="2008-01-01T00:00:00Z").status == 409
        account.refresh_from_db()
        assert account.name == "\x07"
        account.name = "mended"
        account.save()
        assert "<name>mended</name>" in sent_on()[0]

    def test_an_edit_that_is_held_back_may_lose(self, peer_client):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>a</name>"))
        account = Account.objects.get()
        account.name = "\x07"
        account.save()
        assert self.remote(peer_client, 5, stamp=LATER).status == 200
        account.refresh_from_db()
        assert account.name == "remote"
        assert tracked().problem == ""


class TestDeferred:
    """Rule 6: an entry that cannot be applied is kept, not dropped, and never blocks a feed."""

    @pytest.mark.parametrize(
        ("inner", "path"),
        [
            (f"<name>{'x' * 201}</name>", "account/name"),
            ("<name>a</name><email>nobody</email>", "account/email"),
            ("<name>a</name><creditLimit>much</creditLimit>", "account/creditLimit"),
            ("<name>a</name><creditLimit>99999999999.99</creditLimit>", "account/creditLimit"),
            ('<name xsi:nil="true"/>', "account/name"),
            ("<name>a</name><isActive>maybe</isActive>", "account/isActive"),
            ("<name><b/></name>", "account/name"),
        ],
    )
    def test_kept_with_its_reason(self, peer_client, inner, path):
        first, second = catch_up(
            peer_client,
            entry_xml(UUIDS[0], APP1, 1, inner),
            entry_xml(UUIDS[1], APP1, 2, "<name>fine</name>"),
        )
        assert (first.status, first.code, first.path) == (202, "Deferred", path)
        assert second.status == 200
        assert [a.name for a in Account.objects.all()] == ["fine"]
        assert ticks(peer_client)[APP1] == 3
        entry = DeferredEntry.objects.get()
        assert entry.resource.uuid == tracked().uuid
        assert entry.reason
        assert "<name" in entry.payload

    def test_sent_on_as_it_came(self, peer_client):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>a</name><creditLimit>much</creditLimit><x>1</x>"))
        [entry] = sent_on()
        assert "<creditLimit>much</creditLimit><x>1</x>" in entry
        assert f"<sync:endpoint>{APP1}</sync:endpoint><sync:tick>1</sync:tick>" in entry

    def test_posted_again_it_changes_nothing(self, peer_client):
        entry = entry_xml(UUIDS[0], APP1, 1, "<name>a</name><creditLimit>much</creditLimit>")
        catch_up(peer_client, entry)
        assert catch_up(peer_client, entry)[0].message == "Unchanged"
        assert DeferredEntry.objects.count() == 1

    def test_replaced_by_a_later_version(self, peer_client):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<creditLimit>much</creditLimit>"))
        assert catch_up(peer_client, entry_xml(UUIDS[0], APP1, 2, "<name>a</name>"))[0].status == 200
        assert not DeferredEntry.objects.exists()
        assert Account.objects.get().name == "a"

    def test_a_later_version_that_is_no_better(self, peer_client):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<creditLimit>much</creditLimit>"))
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 2, "<creditLimit>more</creditLimit>"))
        assert ">more<" in DeferredEntry.objects.get().payload

    def test_an_update_that_cannot_be_applied_leaves_the_row(self, peer_client):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>a</name>"))
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 2, "<name>b</name><creditLimit>much</creditLimit>"))
        assert Account.objects.get().name == "a"
        assert tracked().is_deferred
        assert ">much<" in sent_on()[0]

    def test_a_missing_payload(self, peer_client):
        [said] = catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1).replace("<account", "<!-- ").replace("</account>", " -->")
                          .replace("<sdata:payload>", f'<sdata:payload sdata:uuid="{UUIDS[0]}">'))  # fmt: skip
        assert said.status == 202
        assert DeferredEntry.objects.get().reason == "Expected a payload, found none."

    def test_the_databases_own_trouble_is_not_the_entrys(self, peer_client, monkeypatch):
        def locked(*args, **kwargs):
            raise OperationalError("database is locked")

        monkeypatch.setattr("django.db.models.query.QuerySet.bulk_create", locked)
        response = post(peer_client, feed_xml(digest_xml((APP1, 2)), entry_xml(UUIDS[0], APP1, 1, "<name>a</name>")))
        assert response.status_code == 503
        assert not DeferredEntry.objects.exists()


@pytest.fixture
def coupons():
    with sdata_sync.registered(Coupon) as resource:
        yield resource


def coupon_xml(*args, **kwargs):
    return entry_xml(*args, **kwargs, element="coupon")


class TestUnique:
    path = PATH.replace("accounts", "coupons")

    def test_a_clash_is_deferred_and_tried_again(self, peer_client, coupons):
        Coupon.objects.create(code="SALE")
        said = catch_up(
            peer_client,
            coupon_xml(UUIDS[0], APP1, 1, "<code>SALE</code><value>5</value>"),
            coupon_xml(UUIDS[1], APP1, 2, "<code>OTHER</code><value>5</value>"),
            path=self.path,
        )
        assert [(r.status, r.path) for r in said] == [(202, "coupon/code"), (200, "")]
        Coupon.objects.filter(code="SALE").delete()
        catch_up(peer_client, coupon_xml(UUIDS[2], APP1, 3, "<code>THIRD</code><value>1</value>"), path=self.path)
        assert {c.code for c in Coupon.objects.all()} == {"SALE", "OTHER", "THIRD"}
        assert not DeferredEntry.objects.exists()
        assert not tracked().is_deferred
        assert len(sent_on(coupons)) == 4, "three, and the tombstone of the one that was in the way"

    def test_two_in_one_page(self, peer_client, coupons):
        entries = [coupon_xml(UUIDS[n], APP1, n + 1, "<code>SAME</code><value>5</value>") for n in range(2)]
        assert sorted(r.status for r in catch_up(peer_client, *entries, path=self.path)) == [200, 202]

    def test_values_that_change_places(self, peer_client, coupons):
        entries = [coupon_xml(UUIDS[n], APP1, n + 1, f"<code>{'AB'[n]}</code><value>1</value>") for n in range(2)]
        catch_up(peer_client, *entries, path=self.path)
        swapped = [coupon_xml(UUIDS[n], APP1, n + 3, f"<code>{'BA'[n]}</code><value>1</value>") for n in range(2)]
        catch_up(peer_client, *swapped, path=self.path)
        catch_up(peer_client, coupon_xml(UUIDS[2], APP1, 9, "<code>C</code><value>1</value>"), path=self.path)
        held = {str(row.uuid): row.is_deferred for row in TrackedResource.objects.filter(kind="coupons")}
        assert len(held) == 3
        assert len(sent_on(coupons)) == 3, "whatever could not be written is still sent on"


class TestModelsWithAMindOfTheirOwn:
    def path(self, resource):
        return PATH.replace("accounts", resource.name)

    def test_the_columns_are_what_came_although_save_replaces_them(self, peer_client):
        with sdata_sync.registered(Shouting) as kind:
            said = catch_up(
                peer_client,
                entry_xml(UUIDS[0], APP1, 1, "<name>quiet</name>", element="shouting"),
                path=self.path(kind),
            )
            assert [r.status for r in said] == [200]
            assert [row.name for row in Shouting.objects.all()] == ["quiet"]
            assert assign_ticks(kind).value.tick(kind.endpoint) == 1
            assert len(sent_on(kind)) == 1

    def test_their_clean_runs_if_the_resource_validates(self, peer_client, monkeypatch):
        monkeypatch.setattr(sdata_sync.SyncResource, "validate", True)
        with sdata_sync.registered(Shouting) as resource:
            said = catch_up(
                peer_client,
                entry_xml(UUIDS[0], APP1, 1, "<name>quiet</name>", element="shouting"),
                entry_xml(UUIDS[1], APP1, 2, "<name>forbidden</name>", element="shouting"),
                path=self.path(resource),
            )
            assert [r.status for r in said] == [200, 202]
            assert [row.name for row in Shouting.objects.all()] == ["quiet"]
            assert assign_ticks(resource).value.tick(resource.endpoint) == 1
            assert len(sent_on(resource)) == 2

    def test_their_receivers_run(self, peer_client):
        seen = []

        def receiver(sender, instance, created=None, **kwargs):
            seen.append((instance.name, created))

        post_save.connect(receiver, sender=Account)
        try:
            catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>a</name>"))
            catch_up(peer_client, entry_xml(UUIDS[0], APP1, 2, "<name>b</name>"))
        finally:
            post_save.disconnect(receiver, sender=Account)
        assert seen == [("a", True), ("b", False)]
        assert ticks(peer_client)[APP2] == 1

    def test_a_receiver_that_changes_something_else_makes_a_change(self, peer_client):
        other = Account.objects.create(name="other")
        assert ticks(peer_client)[APP2] == 2

        def receiver(sender, instance, **kwargs):
            if instance.name != "other" and other.notes != "seen":
                other.notes = "seen"
                other.save()

        post_save.connect(receiver, sender=Account)
        try:
            catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>a</name>"))
        finally:
            post_save.disconnect(receiver, sender=Account)
        assert ticks(peer_client)[APP2] == 3

    def test_a_receiver_that_fails_defers_the_entry(self, peer_client):
        def receiver(sender, instance, **kwargs):
            if instance.name == "a":
                raise RuntimeError("not on a Sunday")

        pre_save.connect(receiver, sender=Account)
        try:
            said = catch_up(
                peer_client,
                entry_xml(UUIDS[0], APP1, 1, "<name>a</name>"),
                entry_xml(UUIDS[1], APP1, 2, "<name>b</name>"),
            )
        finally:
            pre_save.disconnect(receiver, sender=Account)
        assert [r.status for r in said] == [202, 200]
        assert "not on a Sunday" in DeferredEntry.objects.get().reason

    def test_times_that_write_themselves_are_those_that_came(self, peer_client):
        with sdata_sync.registered(Stamped) as resource:
            inner = "<name>a</name><created>2001-01-01T00:00:00Z</created><updated>2002-02-02T00:00:00Z</updated>"
            catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, inner, element="stamped"), path=self.path(resource))
            row = Stamped.objects.get()
            assert (row.created.year, row.updated.year) == (2001, 2002)
            catch_up(
                peer_client,
                entry_xml(UUIDS[0], APP1, 2, inner.replace("2002-", "2003-"), element="stamped"),
                path=self.path(resource),
            )
            row.refresh_from_db()
            assert (row.created.year, row.updated.year) == (2001, 2003)
            assert len(sent_on(resource)) == 1

    def test_multi_table_inheritance(self, peer_client):
        with sdata_sync.registered(Restaurant) as resource:
            path = self.path(resource)
            catch_up(
                peer_client,
                entry_xml(UUIDS[0], APP1, 1, "<name>a</name><stars>1</stars>", element="restaurant"),
                path=path,
            )
            catch_up(
                peer_client,
                entry_xml(UUIDS[0], APP1, 2, "<name>b</name><stars>2</stars>", element="restaurant"),
                path=path,
            )
            row = Restaurant.objects.get()
            assert (row.name, row.stars) == ("b", 2)
            catch_up(peer_client, entry_xml(UUIDS[0], APP1, 3, deleted=True, element="restaurant"), path=path)
            assert not Restaurant.objects.exists()
            assert assign_ticks(resource).value.tick(resource.endpoint) == 1


class TestClocks:
    def test_a_clock_that_is_ahead_is_said_loudly(self, peer_client, caplog):
        catch_up(peer_client, entry_xml(UUIDS[0], APP1, 1, "<name>a</name>", stamp=LATER))
        assert f"{APP1} stamps its changes" in caplog.text
        assert Endpoint.objects.get(url=APP1).clock_ahead > 0
        assert tracked().stamp == parse_stamp(LATER), "not clamped"


def test_several_batches_in_one_feed(peer_client, monkeypatch):
    monkeypatch.setattr("sdata_sync.sync.apply.receive.BATCH", 7)
    import uuid

    entries = [entry_xml(uuid.uuid4(), APP1, n, f"<name>{n}</name>") for n in range(1, 31)]
    assert {r.status for r in catch_up(peer_client, *entries)} == {200}
    assert Account.objects.count() == 30
