"""Several databases, transactions around requests, asynchronous code."""

import asyncio

import pytest
from django.db import OperationalError, connections, transaction
from django.test import override_settings

import sdata_sync
from sdata_sync.models import DigestEntry, Operation, Peer, ScopedResource, TrackedResource
from sdata_sync.models.operation import Phase
from sdata_sync.registry import registry
from sdata_sync.sync.apply.applier import Applier
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account, Contact

from ..seams import carrying_out_at_once
from ..shapes.models import Article, Author, Tag
from ..wire import APP1, PATH, UUIDS, digest_entry, digest_xml, entry_xml, feed_xml, post

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("relations"),
]
ACCOUNTS = registry.of_kind("accounts")


class SalesRouter:
    """The rows that are shared are in a database of their own; users, peers and streams are not."""

    def db_for_read(self, model, **hints):
        return "node1" if model._meta.app_label in ("crm", "shapes") else None

    db_for_write = db_for_read


@pytest.fixture
def two_databases():
    with override_settings(DATABASE_ROUTERS=["tests.integration.test_databases.SalesRouter"]):
        yield
        for model in (DigestEntry, ScopedResource, TrackedResource, Contact, Account):
            model.objects.using("node1").all().delete()


class TestSeveral:
    def test_the_log_is_where_the_rows_are(self, two_databases, peer_client):
        Account.objects.create(name="Saved")
        Account.objects.using("node1").create(name="Saved by name")
        assert assign_ticks(ACCOUNTS).value.tick(ACCOUNTS.endpoint) == 3
        assert TrackedResource.objects.using("node1").filter(kind="accounts").count() == 2
        assert not TrackedResource.objects.using("default").exists()
        feed = peer_client.post(f"{PATH}/$syncSource", digest_entry(), content_type="application/atom+xml;type=entry")
        assert feed.content.count(b"<entry") == 2

    def test_what_comes_is_applied_there(self, two_databases, peer_client):
        entry = entry_xml(UUIDS[0], APP1, 1, "<name>Received</name>")
        answer = post(peer_client, feed_xml(digest_xml((APP1, 2), origin=APP1), entry))
        assert answer.status_code == 200, answer.content
        assert Account.objects.using("node1").get().name == "Received"
        assert not Account.objects.using("default").exists()

    def test_rows_of_another_database_are_not_those_that_are_shared(self, two_databases):
        other = Account(name="Elsewhere")
        other.save(using="default")
        other.delete(using="default")
        with transaction.atomic(using="default"):
            Account.objects.using("default").bulk_create([Account(name="Elsewhere")])
            Account.objects.using("default").update(city="Rome")
            Account.objects.using("default").delete()
        assert not TrackedResource.objects.using("default").exists()
        assert not TrackedResource.objects.using("node1").exists()

    def test_a_filter(self, two_databases, engineer, peer_client):
        """What a peer has is noted beside the rows, and the peer itself is elsewhere."""

        class Some(sdata_sync.SyncResource):
            def queryset_for(self, peer):
                return Account.objects.filter(city="Rome") if peer is not None else None

        Peer.objects.create(name="branch", url=APP1.rpartition("/")[0], user=engineer)
        usual = type(ACCOUNTS.declared)
        sdata_sync.unregister(Account)
        try:
            with sdata_sync.registered(Account, Some):
                Account.objects.create(name="One", city="Rome")
                Account.objects.create(name="Two", city="Oslo")
                type_ = "application/atom+xml;type=entry"
                feed = peer_client.post(f"{PATH}/$syncSource", digest_entry(origin=APP1), content_type=type_)
                assert (b"One" in feed.content, b"Two" in feed.content) == (True, False)
        finally:
            sdata_sync.register(Account)(usual)


class TestTransactionsAroundRequests:
    @pytest.fixture(autouse=True)
    def atomic_requests(self, monkeypatch):
        monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)

    def test_a_feed_is_applied_and_read(self, peer_client):
        entry = entry_xml(UUIDS[0], APP1, 1, "<name>Received</name>")
        answer = post(peer_client, feed_xml(digest_xml((APP1, 2), origin=APP1), entry))
        assert answer.status_code == 200, answer.content
        assert Account.objects.get().name == "Received"
        assert peer_client.get(f"{PATH}/$syncDigest").status_code == 200

    def test_what_is_refused_leaves_nothing(self, peer_client):
        entry = entry_xml(UUIDS[0], APP1, 7, "<name>Received</name>")
        answer = post(peer_client, feed_xml(digest_xml((APP1, 8), origin=APP1), entry))
        assert answer.status_code == 400
        assert not Account.objects.exists()
        assert load_digest(ACCOUNTS).value.tick(APP1) == 1

    def test_what_the_database_undoes_is_done_again(self, peer_client, monkeypatch):
        usual, undone = Applier.finish, []

        def finish(self, **options):
            if not undone:
                undone.append(True)
                raise OperationalError("database is locked")
            return usual(self, **options)

        monkeypatch.setattr(Applier, "finish", finish)
        entry = entry_xml(UUIDS[0], APP1, 1, "<name>Received</name>")
        answer = post(peer_client, feed_xml(digest_xml((APP1, 2), origin=APP1), entry))
        assert (answer.status_code, undone) == (200, [True])
        assert Account.objects.get().name == "Received"

    def test_an_asynchronous_call(self, peer_client):
        Account.objects.create(name="Saved")
        with carrying_out_at_once():
            answer = peer_client.post(
                f"{PATH}/$syncSource('one')", digest_entry(), content_type="application/atom+xml;type=entry"
            )
        assert answer.status_code == 202
        assert Operation.objects.get().phase == Phase.DONE


class TestAsynchronousCode:
    def test_its_saves_are_captured(self, db):
        async def work():
            account = await Account.objects.acreate(name="One")
            account.city = "Rome"
            await account.asave()
            await Account.objects.acreate(name="Two")
            await Account.objects.filter(name="Two").adelete()

        asyncio.run(work())
        digest = assign_ticks(ACCOUNTS).value
        assert digest.tick(ACCOUNTS.endpoint) == 2
        assert TrackedResource.objects.get().local_key == str(Account.objects.get().pk)

    def test_its_associations_too(self, db):
        with sdata_sync.registered(Author), sdata_sync.registered(Tag), sdata_sync.registered(Article):

            async def work():
                article = await Article.objects.acreate(title="One")
                tag = await Tag.objects.acreate(name="new")
                await article.tags.aadd(tag)

            asyncio.run(work())
            marked = TrackedResource.objects.filter(mark__isnull=False).values_list("kind", flat=True)
            assert sorted(marked) == ["articles", "tags"]
