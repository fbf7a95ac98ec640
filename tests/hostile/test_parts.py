"""What a peer with a part of the rows can write: ``queryset_for`` binds writing as it binds reading."""

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from rest_framework.authtoken.models import Token

import sdata_sync
from sdata_sync.models import ConflictRecord, DeferredEntry, Peer, ScopedResource, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.content.deferred import discard, retry_all, retry_chosen
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account, Contact, SalesOrder, SalesOrderLine

from ..wire import APP1, APP2, UUIDS, digest_xml, entry_xml, feed_xml, post, results, ticks

pytestmark = pytest.mark.django_db
BASE1 = APP1.rpartition("/")[0]
BASE2 = APP2.rpartition("/")[0]
NORTH = "<name>Nora</name><city>north</city>"
SOUTH = "<name>Nora</name><city>south</city>"


class NorthernAccounts(sdata_sync.SyncResource):
    def queryset_for(self, peer):
        return Account.objects.filter(city="north")


class NorthernContacts(sdata_sync.SyncResource):
    def queryset_for(self, peer):
        return Contact.objects.filter(account__city="north")


class NorthernOrders(sdata_sync.SyncResource):
    children = type(registry.of_model(SalesOrder).declared).children

    def queryset_for(self, peer):
        return SalesOrder.objects.filter(account__city="north")


@pytest.fixture(autouse=True)
def _filters():
    declared = {Account: NorthernAccounts, Contact: NorthernContacts, SalesOrder: NorthernOrders}
    usual = {model: type(registry.of_model(model).declared) for model in declared}
    for model, resource in declared.items():
        sdata_sync.unregister(model)
        sdata_sync.register(model)(resource)
    yield
    for model, resource in usual.items():
        sdata_sync.unregister(model)
        sdata_sync.register(model)(resource)


@pytest.fixture
def north(db):
    """The login of the peer that has the rows of the north."""
    user = User.objects.create_user("north")
    user.user_permissions.set(Permission.objects.filter(codename__in=["read_feeds", "push_feeds", "link_resources"]))
    Peer.objects.create(name="north", url=BASE1, user=user)
    return Client(headers={"authorization": f"Token {Token.objects.create(user=user).key}"})


def of(model):
    return registry.of_model(model)


def make(model, **values):
    """Create a row at this node; return it and its uuid."""
    row = model.objects.create(**values)
    assign_ticks(of(model))
    return row, TrackedResource.objects.get(kind=of(model).name, local_key=str(row.pk)).uuid


class Sending:
    """Sends versions of one kind, each with the next tick, and with knowledge of all that this node has."""

    def __init__(self, client, model):
        self.client, self.kind, self.tick = client, of(model), 0
        self.path = f"/sdata/myApp2/myContract/-/{self.kind.name}"

    def __call__(self, uuid, content="", **options):
        self.tick += 1
        entry = entry_xml(
            uuid, f"{BASE1}/{self.kind.name}", self.tick, content, element=self.kind.element_name, **options
        )
        known = load_digest(self.kind).value.tick(self.kind.endpoint)
        digest = digest_xml(
            (f"{BASE1}/{self.kind.name}", self.tick + 1),
            (self.kind.endpoint, known),
            origin=f"{BASE1}/{self.kind.name}",
        )
        [said] = results(post(self.client, feed_xml(digest, entry), path=self.path))
        return said


@pytest.fixture
def accounts(north):
    return Sending(north, Account)


class TestTheOwnPart:
    def test_is_written(self, accounts):
        _account, uuid = make(Account, name="Anne", city="north")
        assert accounts(uuid, "<name>Anna</name><city>north</city>").status == 200
        assert accounts(UUIDS[0], NORTH).status == 200
        assert accounts(UUIDS[0], deleted=True).status == 200
        assert [a.name for a in Account.objects.all()] == ["Anna"]
        assert not DeferredEntry.objects.exists()

    def test_a_deletion_of_a_resource_that_is_not_known_leaves_a_tombstone(self, accounts):
        assert accounts(UUIDS[0], deleted=True).status == 200


class TestARowOutside:
    @pytest.mark.parametrize("content", [NORTH, SOUTH])
    @pytest.mark.parametrize("deleted", [False, True])
    def test_is_neither_changed_nor_deleted(self, accounts, content, deleted):
        _, uuid = make(Account, name="Bert", city="south")
        before = TrackedResource.objects.get(uuid=uuid)
        said = accounts(uuid, content, deleted=deleted)
        assert (said.status, said.code) == (403, "OutOfPart")
        assert [(a.name, a.city) for a in Account.objects.all()] == [("Bert", "south")]
        after = TrackedResource.objects.get(uuid=uuid)
        assert (after.endpoint_id, after.tick, after.etag) == (before.endpoint_id, before.tick, before.etag)
        entry = DeferredEntry.objects.get()
        assert (entry.application_code, entry.is_aside, entry.is_deleted) == ("OutOfPart", True, deleted)
        assert deleted or "Nora" in entry.payload
        # It is withdrawn from the peer, which has its own version of it.
        assert ScopedResource.objects.filter(resource=after, is_withdrawn=True, needs_resend=True).exists()

    def test_the_answer_names_no_key(self, north, accounts):
        account, uuid = make(Account, name="Bert", city="south")
        tick = accounts.tick + 1
        entry = entry_xml(uuid, APP1, tick, NORTH)
        response = post(north, feed_xml(digest_xml((APP1, tick + 1), origin=APP1), entry))
        assert f"('{account.pk}')" not in response.content.decode()
        again = post(north, feed_xml(digest_xml((APP1, tick + 1), origin=APP1), entry))
        assert f"('{account.pk}')" not in again.content.decode()

    def test_with_may_move_it_may_be_moved_in(self, accounts):
        NorthernAccounts.may_move = True
        try:
            _, uuid = make(Account, name="Bert", city="south")
            assert accounts(uuid, "<name>Bert</name><city>south</city>").status == 403
            assert accounts(uuid, "<name>Bert</name><city>north</city>").status == 200
            assert Account.objects.get().city == "north"
        finally:
            NorthernAccounts.may_move = False


class TestMovingOut:
    def test_is_refused_and_ours_is_sent(self, accounts):
        _, uuid = make(Account, name="Anne", city="north")
        before = TrackedResource.objects.get(uuid=uuid).tick
        said = accounts(uuid, "<name>Anne</name><city>south</city>")
        assert (said.status, said.code) == (403, "OutOfPart")
        assert Account.objects.get().city == "north"
        assign_ticks(of(Account))
        after = TrackedResource.objects.get(uuid=uuid)
        assert after.tick > before
        assert after.endpoint.url == APP2

    def test_with_may_move_it_is_applied(self, accounts):
        NorthernAccounts.may_move = True
        try:
            _, uuid = make(Account, name="Anne", city="north")
            assert accounts(uuid, "<name>Anne</name><city>south</city>").status == 200
            assert Account.objects.get().city == "south"
        finally:
            NorthernAccounts.may_move = False

    def test_what_it_creates_must_lie_in_its_part(self, accounts):
        NorthernAccounts.may_move = True  # which does not matter here
        try:
            said = accounts(UUIDS[0], SOUTH)
        finally:
            NorthernAccounts.may_move = False
        assert (said.status, said.code) == (403, "OutOfPart")
        assert not Account.objects.exists()
        assert "south" in DeferredEntry.objects.get().payload
        assert ScopedResource.objects.filter(is_withdrawn=True, needs_resend=True).count() == 1
        assert accounts(UUIDS[0], NORTH).status == 200  # a later version of it
        assert Account.objects.get().city == "north"
        assert not DeferredEntry.objects.exists()

    def test_one_of_many_does_not_hold_up_the_others(self, north):
        entries = [entry_xml(UUIDS[n], APP1, n + 1, SOUTH if n == 2 else NORTH) for n in range(5)]
        said = results(post(north, feed_xml(digest_xml((APP1, 6), origin=APP1), *entries)))
        assert [r.status for r in said] == [200, 200, 403, 200, 200]
        assert Account.objects.count() == 4
        assert ticks(north)[APP1] == 6


class TestReferences:
    @pytest.fixture
    def contacts(self, north):
        return Sending(north, Contact)

    def body(self, account, name="Doe"):
        return f'<lastName>{name}</lastName><account sdata:uuid="{account}"/>'

    def test_a_new_one_to_a_row_outside_is_refused(self, contacts):
        _, uuid = make(Account, name="Bert", city="south")
        said = contacts(UUIDS[0], self.body(uuid))
        assert (said.status, said.code) == (403, "OutOfPart")
        assert not Contact.objects.exists()

    def test_one_to_a_row_that_is_not_known_waits(self, contacts, accounts):
        assert contacts(UUIDS[0], self.body(UUIDS[1])).status in (200, 202)
        assert accounts(UUIDS[1], NORTH).status == 200
        retry_all(of(Account))
        assert Contact.objects.get().account.name == "Nora"
        assert not DeferredEntry.objects.exists()

    def test_one_that_the_row_has_already_passes(self, contacts, accounts):
        north, _ = make(Account, name="Anne", city="north")
        south, _out = make(Account, name="Bert", city="south")
        contact, _ = make(Contact, last_name="Doe", account=north)
        uuid = TrackedResource.objects.get(kind="accounts", local_key=str(north.pk)).uuid
        Account.objects.filter(pk=north.pk).update(main_contact=contact)
        contact_uuid = TrackedResource.objects.get(kind="contacts").uuid
        # The main contact of an account of the north moves to the south; the account repeats it.
        Contact.objects.filter(pk=contact.pk).update(account=south)
        said = accounts(uuid, f'<name>Anna</name><city>north</city><mainContact sdata:uuid="{contact_uuid}"/>')
        assert said.status == 200
        assert Account.objects.get(pk=north.pk).name == "Anna"

    def test_a_child_of_a_row_outside_is_not_taken(self, north):
        inside, inside_uuid = make(Account, name="Anne", city="north")
        outside, _ = make(Account, name="Bert", city="south")
        theirs = SalesOrder.objects.create(order_number="S1", account=outside, order_date="2026-01-01")
        line = SalesOrderLine.objects.create(order=theirs, line_number=1, description="x")
        _ours, uuid = make(SalesOrder, order_number="N1", account=inside, order_date="2026-01-01")
        assign_ticks(of(SalesOrder))
        from sdata_sync.models import ChildResource

        child = ChildResource.objects.get(local_key=str(line.pk)).uuid
        body = (
            f'<orderNumber>N1</orderNumber><account sdata:uuid="{inside_uuid}"/><orderLines sdata:deleteMissing="true">'
            f'<salesOrderLine sdata:uuid="{child}"><lineNumber>1</lineNumber><description>stolen</description>'
            "</salesOrderLine></orderLines>"
        )
        said = Sending(north, SalesOrder)(uuid, body)
        assert (said.status, said.code) == (403, "OutOfPart")
        line.refresh_from_db()
        assert (line.order_id, line.description) == (theirs.pk, "x")


class TestDeletionsWithConsequences:
    def test_that_leave_the_part_are_refused(self, accounts):
        """A contact of the account is hidden from the peer."""
        account, uuid = make(Account, name="Anne", city="north")
        make(Contact, last_name="Doe", account=account)

        class NoContacts(sdata_sync.SyncResource):
            def queryset_for(self, peer):
                return Contact.objects.none()

        sdata_sync.unregister(Contact)
        sdata_sync.register(Contact)(NoContacts)
        said = accounts(uuid, deleted=True)
        assert (said.status, said.code) == (403, "OutOfPart")
        assert Account.objects.count() == Contact.objects.count() == 1

    def test_that_empty_a_reference_outside_are_refused(self, north):
        first, _ = make(Account, name="Anne", city="north")
        contact, uuid = make(Contact, last_name="Doe", account=first)
        other, _ = make(Account, name="Bert", city="south", main_contact=contact)
        said = Sending(north, Contact)(uuid, deleted=True)
        assert (said.status, said.code) == (403, "OutOfPart")
        other.refresh_from_db()
        assert other.main_contact_id == contact.pk

    def test_within_the_part_are_applied(self, accounts):
        _account, uuid = make(Account, name="Anne", city="north")
        assert accounts(uuid, deleted=True).status == 200
        assert not Account.objects.exists()


class TestAliasesAndDuplicates:
    def test_an_alias_of_a_row_outside_is_refused(self, accounts):
        _, inside = make(Account, name="Anne", city="north")
        _, outside = make(Account, name="Bert", city="south")
        for uuid, by in ((inside, outside), (outside, inside)):
            said = accounts(uuid, deleted=True, replaced_by=by)
            assert (said.status, said.code) == (403, "OutOfPart")
        assert Account.objects.count() == 2

    def test_a_duplicate_outside_is_not_merged(self, accounts, monkeypatch):
        monkeypatch.setattr(
            NorthernAccounts, "find_duplicate", lambda self, row: Account.objects.filter(name=row.name).first()
        )
        make(Account, name="Nora", city="south")
        said = accounts(UUIDS[0], NORTH)
        assert (said.status, said.code) == (403, "OutOfPart")
        assert [(a.name, a.city) for a in Account.objects.all()] == [("Nora", "south")]


class TestWhatIsKept:
    @pytest.fixture
    def kept(self, accounts):
        account, uuid = make(Account, name="Bert", city="south")
        accounts(uuid, "<name>Bertha</name><city>south</city>")
        return account, DeferredEntry.objects.get()

    def test_is_never_tried_again_by_itself(self, kept):
        account, _ = kept
        retry_all(of(Account))
        account.refresh_from_db()
        assert account.name == "Bert"

    def test_is_applied_by_an_administrator_as_a_change_of_this_node(self, kept):
        account, entry = kept
        assert retry_chosen(of(Account), [entry.pk]) == 1
        account.refresh_from_db()
        assert account.name == "Bertha"
        assign_ticks(of(Account))
        tracked = TrackedResource.objects.get(kind="accounts", local_key=str(account.pk))
        assert tracked.endpoint.url == APP2
        assert not DeferredEntry.objects.exists()

    def test_is_discarded_by_an_administrator(self, kept):
        _, entry = kept
        assert discard(DeferredEntry.objects.filter(pk=entry.pk)) == 1
        assert DeferredEntry.objects.get().is_discarded

    def test_of_another_peer_is_recorded_when_it_is_replaced(self, kept, accounts):
        _, entry = kept
        DeferredEntry.objects.update(peer=None)
        accounts(entry.resource.uuid, "<name>Berta</name><city>south</city>")
        assert "Bertha" in ConflictRecord.objects.get().remote_payload
        assert "Berta<" in DeferredEntry.objects.get().payload

    def test_is_not_sent_to_others(self, north, accounts):
        accounts(UUIDS[0], SOUTH)
        engine = User.objects.create_superuser("engine")
        client = Client(headers={"authorization": f"Token {Token.objects.create(user=engine).key}"})
        NorthernAccounts.queryset_for, usual = sdata_sync.SyncResource.queryset_for, NorthernAccounts.queryset_for
        try:
            from ..wire import ENTRY, digest_entry

            url = "/sdata/myApp2/myContract/-/accounts/$syncSource"
            feed = client.post(url, data=digest_entry(), content_type=ENTRY).content.decode()
        finally:
            NorthernAccounts.queryset_for = usual
        assert "Nora" not in feed
        assert UUIDS[0].lower() not in feed.lower()

    def test_invalid_content_waits_without_reaching_others(self, accounts):
        _account, uuid = make(Account, name="Anne", city="north")
        said = accounts(uuid, "<name>Anna</name><city>north</city><creditLimit>much</creditLimit>")
        assert said.status == 202
        entry = DeferredEntry.objects.get()
        assert entry.is_aside
        tracked = TrackedResource.objects.get(uuid=uuid)
        assert not tracked.is_deferred
        assert tracked.endpoint.url == APP2

    def test_a_row_that_was_changed_meanwhile_is_not_overwritten(self, north, accounts):
        contacts = Sending(north, Contact)
        account, _ = make(Account, name="Anne", city="north")
        contact, uuid = make(Contact, last_name="Doe", account=account)
        missing = f'<lastName>Roe</lastName><account sdata:uuid="{UUIDS[5]}"/>'
        assert contacts(uuid, missing).status == 202
        contact.first_name = "edited since"
        contact.save()
        assign_ticks(of(Contact))
        assert accounts(UUIDS[5], NORTH).status == 200
        retry_all(of(Account))
        contact.refresh_from_db()
        assert (contact.first_name, contact.last_name) == ("edited since", "Doe")
        assert "Roe" in ConflictRecord.objects.get().remote_payload
        assert not DeferredEntry.objects.exists()


def test_the_number_of_queries_tells_nothing(north):
    """For a row outside the part and for one that does not exist, where both are refused."""
    _, outside = make(Account, name="Bert", city="south")
    counts, said = [], []
    for uuid in (outside, UUIDS[7]):
        with CaptureQueriesContext(connection) as queries:
            said.append(north.get(f"/sdata/myApp2/myContract/-/accounts/$linked('{uuid}')").content.decode())
        counts.append(len(queries))
    assert counts[0] == counts[1]
    assert said[0].replace(str(outside), "X") == said[1].replace(UUIDS[7], "X").replace(UUIDS[7].lower(), "X")
