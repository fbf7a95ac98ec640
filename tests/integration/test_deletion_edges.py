"""Deletions and large versions at the edges: relays, parts, other ``on_delete`` rules, old pages, cycles, idle peers."""

from contextlib import suppress

import pytest
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import models
from django.test import Client

import sdata_sync
from sdata_sync.conf import conf
from sdata_sync.delivery.client import PeerClient
from sdata_sync.delivery.monitoring.status import collect_status
from sdata_sync.delivery.session import PeerSession
from sdata_sync.kind import Kind
from sdata_sync.models import (
    ConflictRecord,
    DeferredEntry,
    DeletionCondition,
    DigestEntry,
    Endpoint,
    Peer,
    Stream,
    TrackedResource,
)
from sdata_sync.registry import registry
from sdata_sync.sync.content.deferred import apply_deletions, discard, retry_all
from sdata_sync.sync.log.digests import load_digest
from sdata_sync.sync.stamp.purge import forget_endpoints
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account, Contact

from ..seams import record_requests
from ..shapes.models import Firm, Note, Person
from ..talk import level, pull, push
from ..wire import LATER, digest_xml, entry_xml, feed_xml, post, results
from .test_deletions import accounts, accounts_and_contact, contacts, deliver, exchange, move_and_delete

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("deletion edges"),
]


def deferred(node):
    with node.at_work():
        return [(e.resource.kind, e.reason) for e in DeferredEntry.objects.select_related("resource")]


class TestStaleLostDeletion:
    def test_old_lost_deletion(self, a, b):
        accounts_and_contact(a, b)
        with a.at_work():
            Contact.objects.get().delete()
        with b.at_work():
            c = Contact.objects.get()
            c.first_name = "x"
            c.save()
        exchange(a, b)
        assert contacts(a) == contacts(b) == [("Ada", "old")]
        assert level(a, b)
        with a.at_work():
            c = Contact.objects.get()
            c.account = Account.objects.get(name="new")
            c.save()
        exchange(a, b)
        with b.at_work():
            c = Contact.objects.get()
            c.account = Account.objects.get(name="old")
            c.save()
        with a.at_work():
            Account.objects.get(name="old").delete()
        push(a, b)
        push(a, b)
        exchange(a, b)
        assert contacts(a) != []
        assert contacts(b) != []


class TestCustomOnDelete:
    def test_function_that_cascades(self, a, b, monkeypatch):

        def cascade_too(collector, field, sub_objs, using):
            models.CASCADE(collector, field, sub_objs, using)

        accounts_and_contact(a, b)
        monkeypatch.setattr(Contact._meta.get_field("account").remote_field, "on_delete", cascade_too)
        with a.at_work():
            move_and_delete()
        deliver(a, b)
        exchange(a, b)
        assert contacts(a) == contacts(b) == [("Ada", "new")]


class TestForgottenEndpoint:
    def test_deletion_waits_for_a_forgotten_endpoint(self, nodes, a, b):
        c = nodes[2]
        with c.at_work():
            acc = Account.objects.create(name="c's")
            Contact.objects.create(account=acc, last_name="gone").delete()
        exchange(a, b, c)
        accounts_and_contact(a, b)
        for n in (a, b):
            with n.at_work():
                TrackedResource.objects.filter(kind="contacts", is_deleted=True).delete()
        with b.at_work():
            Peer.objects.filter(name=c.alias).delete()
        with a.at_work():
            Account.objects.get(name="old").delete()
        exchange(a, b)
        assert deferred(b) == []
        assert accounts(b) == ["c's", "new"]


class TestConditionsLeak:
    def test_superseded(self, a, b):
        accounts_and_contact(a, b)
        with a.at_work():
            move_and_delete()
        push(a, b, ["accounts"])
        with b.at_work():
            acc = Account.objects.get(name="old")
            acc.city = "York"
            acc.save()
        exchange(a, b)
        with b.at_work():
            assert not DeferredEntry.objects.exists()
            assert not DeletionCondition.objects.exists()


class TestTriangle:
    def test_honest_relay_is_no_false_claim(self, nodes, a, b):
        c = nodes[2]
        with a.at_work():
            Account.objects.create(name="x")
        deliver(a, b)
        push(a, c)
        with a.at_work():
            Account.objects.create(name="r")
        push(a, c)
        with c.at_work():
            r = Account.objects.get(name="r")
            r.city = "York"
            r.save()
        push(c, b)
        deliver(a, b)
        with b.at_work():
            assert not Endpoint.objects.exclude(anomaly_at=None).exists()
            assert not ConflictRecord.objects.exists()


class PartOfContacts(sdata_sync.SyncResource):
    def queryset_for(self, peer):
        if not conf.base_url.startswith("http://node0/") or peer is None or peer.name != "node1":
            return None
        return Contact.objects.exclude(first_name="secret")


class PartOfAccounts(sdata_sync.SyncResource):
    def queryset_for(self, peer):
        if not conf.base_url.startswith("http://node0/") or peer is None or peer.name != "node1":
            return None
        return Account.objects.exclude(city="secret")


@pytest.fixture
def part_of_contacts(nodes):
    usual = type(registry.of_kind("contacts").declared)
    sdata_sync.unregister(Contact)
    try:
        with sdata_sync.registered(Contact, PartOfContacts):
            yield
    finally:
        sdata_sync.register(Contact)(usual)


@pytest.fixture
def part_of_accounts(nodes):
    usual = type(registry.of_kind("accounts").declared)
    sdata_sync.unregister(Account)
    try:
        with sdata_sync.registered(Account, PartOfAccounts):
            yield
    finally:
        sdata_sync.register(Account)(usual)


class TestParts:
    def test_rows_outside_the_part_of_the_source(self, a, b, part_of_contacts):
        """The branch b deletes an account; the office a has a contact of it that b has never seen."""
        accounts_and_contact(a, b)
        with a.at_work():
            Contact.objects.create(account=Account.objects.get(name="old"), last_name="Brendan", first_name="secret")
        push(a, b)
        assert contacts(b) == [("Ada", "old")]
        with b.at_work():
            Account.objects.get(name="old").delete()
        for _ in range(3):
            push(b, a)
            push(a, b)
        assert deferred(a) == []

    def test_edit_while_a_withdrawal_waits(self, a, b, part_of_accounts):
        accounts_and_contact(a, b)
        push(a, b)
        a.settings["CONFLICT_PRIORITY"] = 1
        with a.at_work():
            Account.objects.create(name="another")
            acc = Account.objects.get(name="old")
            acc.city = "secret"
            acc.save()
        push(a, b)
        with b.at_work():
            acc = Account.objects.get(name="old")
            acc.phone = "1"
            acc.name = "edited at b"
            acc.save()
            assign_ticks(registry.of_kind("accounts"))
        push(b, a)
        # The row is not in the part of b any more: the edit is kept for people to decide about.
        assert "edited at b" not in accounts(a)
        with a.at_work():
            assert "edited at b" in DeferredEntry.objects.get(application_code="OutOfPart").payload

    def test_apply_deletion_on_a_withdrawal(self, a, b, part_of_accounts):
        accounts_and_contact(a, b)
        push(a, b)
        with a.at_work():
            acc = Account.objects.get(name="old")
            acc.city = "secret"
            acc.save()
        push(a, b)
        with b.at_work():
            apply_deletions(registry.of_kind("accounts"), list(DeferredEntry.objects.values_list("pk", flat=True)))
        push(b, a)
        assert contacts(a) == [("Ada", "old")]


class TestCycle:
    def test_two_kinds_that_cascade_to_each_other(self, a, b):
        with sdata_sync.registered(Firm), sdata_sync.registered(Person):
            with a.at_work():
                firm = Firm.objects.create(name="f")
                firm.boss = Person.objects.create(name="p", firm=firm)
                firm.save()
            exchange(a, b)
            with b.at_work():
                assert Firm.objects.get().boss.name == "p"
            with a.at_work():
                Firm.objects.get().delete()
                assert not Person.objects.exists()
            exchange(a, b)
            with b.at_work():
                assert not Firm.objects.exists()
                assert not Person.objects.exists()

    def test_generic_row_that_cannot_be_loaded(self, a, b):
        with sdata_sync.registered(Firm), sdata_sync.registered(Person):
            with a.at_work():
                firm = Firm.objects.create(name="f")
                Firm.objects.create(name="g")
            exchange(a, b)
            with b.at_work():
                ct = ContentType.objects.get_for_model(Firm)
                Note.objects.create(text="x", about_type=ct, about_id=Firm.objects.get(name="f").pk)
                Note.objects.update(text="not here")
            with a.at_work():
                firm.delete()
                Firm.objects.create(name="h")
            push(a, b)
            with b.at_work():
                assert Firm.objects.filter(name="h").exists()


class TestDisabled:
    def test_peer_disabled_after_a_deletion_without_referrers(self, a, b, monkeypatch):
        from sdata_sync.sync.select import changes as pages

        monkeypatch.setattr(pages, "kinds_within_reach", lambda r: frozenset())
        accounts_and_contact(a, b)
        with b.at_work():
            Contact.objects.create(account=Account.objects.get(name="old"), last_name="Brendan")
        with a.at_work():
            Account.objects.get(name="old").delete()
        push(a, b)
        with b.at_work():
            Peer.objects.update(enabled=False)
            retry_all(registry.of_kind("contacts"))
        assert deferred(b) == []


class TestTriangleResolve:
    def test_application_is_asked_about_nothing(self, nodes, a, b, monkeypatch):
        """The application's resolve() is asked about a conflict that is none."""
        c = nodes[2]
        asked = []

        def resolve(self, conflict):
            asked.append(conflict)
            return "remote"

        with a.at_work():
            Account.objects.create(name="x")
        deliver(a, b)
        push(a, c)
        with a.at_work():
            Account.objects.create(name="r")
        push(a, c)
        with c.at_work():
            r = Account.objects.get(name="r")
            r.name = "r2"
            r.save()
        push(c, b)
        monkeypatch.setattr(type(registry.of_kind("accounts").declared), "resolve", resolve, raising=False)
        deliver(a, b)
        exchange(a, b, c)
        assert accounts(c) == ["r2", "x"]


class TestRelay:
    def test_relay_that_knows_less_of_the_referring_kind(self, nodes, a, b):
        c = nodes[2]
        with a.at_work():
            (Account.objects.create(name="old"), Account.objects.create(name="new"))
        exchange(a, b, c)
        with a.at_work():
            Contact.objects.create(account=Account.objects.get(name="old"), last_name="Ada")
        push(a, c)
        assert contacts(c) == [("Ada", "old")]
        with a.at_work():
            move_and_delete()
        push(a, b, ["accounts"])
        push(b, c, ["accounts"])
        exchange(a, b, c)
        assert contacts(a) == contacts(b) == contacts(c) == [("Ada", "new")]

    def test_the_same_with_deliveries(self, nodes, a, b):
        """b relays at once; a's contacts reach b and c a moment later."""
        c = nodes[2]
        with b.at_work():
            Peer.objects.update(relay=True)
        with a.at_work():
            (Account.objects.create(name="old"), Account.objects.create(name="new"))
        exchange(a, b, c)
        with a.at_work():
            Contact.objects.create(account=Account.objects.get(name="old"), last_name="Ada")
        deliver(a, c)
        with a.at_work():
            move_and_delete()
            with PeerSession(Peer.objects.get(name="node1")) as session:
                session.deliver([registry.of_kind("accounts")], impatient=True)
        deliver(b, c)
        deliver(a, b)
        deliver(a, c)
        exchange(a, b, c)
        assert contacts(a) == contacts(b) == contacts(c) == [("Ada", "new")]


class TestUpgradeRepeated:
    def test_repeated_page_after_upgrade(self, a, b, monkeypatch):
        from sdata_sync.delivery.client import PeerClient

        pages = []
        usual = PeerClient.post_page

        def post_page(self, kind, feed, **options):
            feed = b"".join(feed)
            pages.append((kind, feed))
            return usual(self, kind, [feed], **options)

        monkeypatch.setattr(PeerClient, "post_page", post_page)
        with a.at_work():
            Account.objects.create(name="r")
        deliver(a, b)
        page = pages[0][1]
        with b.at_work():
            x = Account.objects.get()
            x.city = "York"
            x.save()
            DigestEntry.objects.update(received_tick=1, shown_tick=1, purge_floor=1)
            assign_ticks(registry.of_kind("accounts"))

        with b.at_work():
            Client(headers={"authorization": f"Token {a.token}"}).post(
                "/sdata/myApp2/myContract/-/accounts/$syncTarget", page, content_type="application/atom+xml;type=feed"
            )
            assert not ConflictRecord.objects.exists()
            assert not Endpoint.objects.exclude(anomaly_at=None).exists()


class TestDiscarded:
    def test_edit_after_the_deletion_was_discarded(self, a, b):
        a.settings["CONFLICT_PRIORITY"] = 1
        accounts_and_contact(a, b)
        with a.at_work():
            move_and_delete()
        push(a, b, ["accounts"])
        with b.at_work():
            discard(DeferredEntry.objects.all())
        exchange(a, b)
        with b.at_work():
            x = Account.objects.get(name="old")
            x.city = "York"
            x.save()
        exchange(a, b)
        assert accounts(a) == accounts(b)

    def test_apply_with_an_edit_that_has_no_number_yet(self, a, b):
        accounts_and_contact(a, b)
        with a.at_work():
            move_and_delete()
        push(a, b, ["accounts"])
        with b.at_work():
            x = Account.objects.get(name="old")
            x.city = "York"
            x.save()
            apply_deletions(registry.of_kind("accounts"), list(DeferredEntry.objects.values_list("pk", flat=True)))
        exchange(a, b)
        with b.at_work():
            assert any("York" in r.local_payload for r in ConflictRecord.objects.all())


class TestForgotten:
    def forget(self, nodes, a, b):
        c = nodes[2]
        accounts_and_contact(a, b)
        with c.at_work():
            acc = Account.objects.create(name="c's")
            Contact.objects.create(account=acc, last_name="gone")
        exchange(a, b, c)
        with c.at_work():
            Contact.objects.get(last_name="gone").delete()
        exchange(a, b, c)
        for n in (a, b):
            with n.at_work():
                call_command("sync_purge")
                Peer.objects.filter(name=c.alias).delete()
        with b.at_work():
            assert forget_endpoints(registry.of_kind("contacts"), dry_run=False) == 1

    def test_deletion_waits_for_it(self, nodes, a, b):
        self.forget(nodes, a, b)
        with b.at_work():
            Contact.objects.create(account=Account.objects.get(name="old"), last_name="Brendan")
        with a.at_work():
            Account.objects.get(name="old").delete()
        push(a, b)
        push(a, b)
        pull(b, a)
        pull(b, a)
        assert deferred(b) == []

    def test_relay_goes_on(self, nodes, a, b, monkeypatch):
        self.forget(nodes, a, b)
        with a.at_work():
            Peer.objects.update(relay=True)
        deliver(a, b)
        with a.at_work():
            [
                (k.kind, st.peer, st.ticks_behind, st.reason)
                for k in collect_status(a.base_url).kinds
                for st in k.streams
            ]
        calls = []
        record_requests(monkeypatch, calls)
        for n in range(3):
            with a.at_work():
                c = Contact.objects.first()
                c.first_name = f"n{n}"
                c.save()
            calls.clear()
            deliver(a, b)
        calls.clear()
        deliver(a, b)
        with a.at_work():
            assert collect_status(a.base_url).is_level
        assert not calls


class TestMaxBytes:
    def test_a_stranger_holds_versions_for_another(self, nodes, a, b):

        c = nodes[2]
        with a.at_work():
            Account.objects.create(name="r")
            assign_ticks(registry.of_kind("accounts"))
        from sdata_sync.atom.digest import render_digest_entry
        from sdata_sync.core.digest import Digest

        body = render_digest_entry(Digest(origin=f"{b.base_url}/accounts"), now=1)
        with a.at_work():
            Client(headers={"authorization": f"Token {c.token}"}).post(
                "/sdata/myApp2/myContract/-/accounts/$syncSource?maxBytes=1",
                body,
                content_type="application/atom+xml;type=entry",
            )
        deliver(a, b)
        assert accounts(b) == ["r"]

    def test_smaller_version_pull_only(self, a, b):
        b.settings["MAX_BODY_BYTES"] = 200000
        with a.at_work():
            Account.objects.create(name="large", notes="x" * 300000)
        with pytest.raises(AssertionError):
            pull(b, a, ["accounts"])
        with a.at_work():
            acc = Account.objects.get()
            acc.notes = "small"
            acc.save()
        pull(b, a, ["accounts"])
        assert accounts(b) == ["large"]

    def test_pull_only_raised(self, a, b, monkeypatch):
        b.settings["MAX_BODY_BYTES"] = 200000
        with a.at_work():
            Account.objects.create(name="large", notes="x" * 300000)
        with pytest.raises(AssertionError):
            pull(b, a, ["accounts"])
        b.settings["MAX_BODY_BYTES"] = 20000000
        for _ in range(3):
            with suppress(AssertionError):  # it is told of what is left out
                pull(b, a, ["accounts"])
        assert accounts(b) == ["large"]

    def test_puller_that_is_no_peer(self, a, b):
        b.settings["MAX_BODY_BYTES"] = 200000
        with a.at_work():
            Peer.objects.all().delete()
            for n, notes in (("first", ""), ("large", "x" * 300000), ("last", "")):
                Account.objects.create(name=n, notes=notes)
        for _ in range(2):
            with suppress(AssertionError):  # it is told of what is left out
                pull(b, a, ["accounts"])
        assert accounts(b) == ["first", "last"]


class TestPurgeFloor:
    def test_old_page(self, a, b, monkeypatch):
        pages = []
        usual = PeerClient.post_page

        def post_page(self, kind, feed, **options):
            feed = b"".join(feed)
            pages.append((kind, feed))
            return usual(self, kind, [feed], **options)

        monkeypatch.setattr(PeerClient, "post_page", post_page)
        with a.at_work():
            Account.objects.create(name="old")
        deliver(a, b)
        page = next((f for k, f in pages if k == "accounts" and b"old" in f))
        with b.at_work():
            Account.objects.get().delete()
        exchange(a, b)
        with b.at_work():
            from sdata_sync.sync.stamp.purge import purge

            purge(
                registry.of_kind("accounts"),
                {"node0": load_digest(registry.of_kind("accounts")).value},
                older_than=None,
                dry_run=False,
            )
            assert not TrackedResource.objects.filter(kind="accounts").exists()

        with b.at_work():
            Client(headers={"authorization": f"Token {a.token}"}).post(
                "/sdata/myApp2/myContract/-/accounts/$syncTarget", page, content_type="application/atom+xml;type=feed"
            )
        assert accounts(b) == []


class TestSurrogate:
    def test_problem_text(self, a, b, monkeypatch):
        usual = type(registry.of_kind("accounts")).values_of
        with a.at_work():
            Account.objects.create(name="first")
            Account.objects.create(name="bad")
        from sdata_sync.sync.content import contents

        usual = contents.contents_of

        def contents_of(resource, rows, *rest, **options):
            if resource.name == "accounts" and any("bad" in map(str, v) for v in rows.values()):
                raise ValueError("cannot read \udc80 this")
            return usual(resource, rows, *rest, **options)

        monkeypatch.setattr(contents, "contents_of", contents_of)
        push(a, b)
        assert accounts(b) == ["first"]


class TestRenderInStamper:
    def test_edit_that_cannot_be_rendered_of_a_row_whose_deletion_waits(self, a, b, monkeypatch):
        accounts_and_contact(a, b)
        with a.at_work():
            move_and_delete()
        push(a, b, ["accounts"])
        usual = Kind.render

        def render(self, attributes, contents, *rest):
            if "York" in contents:
                raise RuntimeError("cannot be rendered")
            return usual(self, attributes, contents, *rest)

        monkeypatch.setattr(Kind, "render", render)
        with b.at_work():
            acc = Account.objects.get(name="old")
            acc.city = "York"
            acc.save()
            Account.objects.create(name="other")
            assign_ticks(registry.of_kind("accounts"))
        push(b, a)
        assert "other" in accounts(a)


class TestNoSource:
    def test_source_that_gives_no_contacts(self, a, b, monkeypatch):
        accounts_and_contact(a, b)
        cls = type(registry.of_kind("contacts").declared)
        monkeypatch.setattr(
            cls, "is_source", property(lambda self: not conf.base_url.startswith(a.base_url)), raising=False
        )
        with a.at_work():
            c = Contact.objects.get()
            c.first_name = "a's own"
            c.save()
            assign_ticks(registry.of_kind("contacts"))
        with b.at_work():
            Contact.objects.create(account=Account.objects.get(name="old"), last_name="Brendan")
            Contact.objects.filter(last_name="Ada").delete()
        with a.at_work():
            Contact.objects.all().delete()
            Account.objects.get(name="old").delete()
        push(a, b, ["accounts"])
        pull(b, a, ["accounts"])
        for _ in range(2):
            with b.at_work(), PeerSession(Peer.objects.get(name=a.alias)) as session:
                Stream.objects.update(compared_at=0)
                for r in registry:
                    session.compare_and_pull(r)
        assert deferred(b) == []


class TestReferrersClaim:
    def test_a_claim_about_another_kind(self, a, b, monkeypatch):
        accounts_and_contact(a, b)
        with b.at_work():
            Contact.objects.create(account=Account.objects.get(name="old"), last_name="Brendan")
        from sdata_sync.core.digest import Digest, DigestEntry
        from sdata_sync.sync.select import changes as pages

        monkeypatch.setattr(
            pages,
            "stamp_referring_kinds",
            lambda r: {
                "contacts": Digest(
                    [DigestEntry(endpoint="http://x/y/contacts", tick=2**62)], origin=f"{a.base_url}/contacts"
                )
            },
        )
        with a.at_work():
            Account.objects.get(name="old").delete()
        exchange(a, b)
        with b.at_work():
            assert not DeferredEntry.objects.exists()


def test_status_says_level_while_a_deletion_waits(a, b, capsys):
    from django.core.management import call_command

    accounts_and_contact(a, b)
    with a.at_work():
        Peer.objects.filter(name="node2").delete()
        move_and_delete()
    with b.at_work():
        Peer.objects.filter(name="node2").delete()
    push(a, b, ["accounts"])
    with b.at_work():
        assert DeferredEntry.objects.exists()
        push(b, a)
        with pytest.raises(SystemExit):
            call_command("sync_status")
        assert not collect_status(b.base_url).is_level


def test_idle_relay_control(nodes, a, b, monkeypatch):
    accounts_and_contact(a, b)
    exchange(a, b, nodes[2])
    with a.at_work():
        Peer.objects.update(relay=True)
    deliver(a, b)
    calls = []
    record_requests(monkeypatch, calls)
    for n in range(2):
        with a.at_work():
            c = Contact.objects.first()
            c.first_name = f"n{n}"
            c.save()
        calls.clear()
        deliver(a, b)
    calls.clear()
    deliver(a, b)
    assert not calls


def test_a_condition_that_was_forgotten_within_its_page_is_stored_again(a, b):
    """Of three deletions in three batches of one page, the first is superseded before the last comes."""
    with a.at_work():
        for name in ("one", "two"):
            account = Account.objects.create(name=name)
            Contact.objects.create(account=account, last_name=name)
    exchange(a, b)
    with b.at_work():
        one, two = (
            TrackedResource.objects.get(local_key=str(Account.objects.get(name=name).pk), kind="accounts").uuid
            for name in ("one", "two")
        )
        own = f"{a.base_url}/accounts"
        tick = load_digest(registry.of_kind("accounts")).value.tick(own)
    entries = [
        entry_xml(one, own, tick, deleted=True, stamp=LATER.replace("00Z", "01Z")),
        entry_xml(one, own, tick + 1, "<name>alive</name>", stamp=LATER.replace("00Z", "02Z")),
        entry_xml(one, own, tick + 2, "<name>alive again</name>", stamp=LATER.replace("00Z", "03Z")),
        entry_xml(two, own, tick + 3, deleted=True, stamp=LATER.replace("00Z", "04Z")),
    ]
    feed = feed_xml(digest_xml((own, tick + 4), origin=own), *entries)
    with b.at_work():
        client = Client(headers={"authorization": f"Token {a.token}"})
        assert [r.status for r in results(post(client, feed))] == [202, 200, 200, 202]
        assert DeferredEntry.objects.get().condition is not None


class People(sdata_sync.SyncResource):
    model = Person


class FirmWithPeople(sdata_sync.SyncResource):
    fields = ("name",)
    children = {"people": People}


class TestChildThatOthersReferTo:
    """An update that removes a child is a deletion, too: the rows of other resources that refer to it stay."""

    def test_rows_that_refer_to_a_removed_child_stay(self, a, b):
        with sdata_sync.registered(Firm, FirmWithPeople):
            with a.at_work():
                firm = Firm.objects.create(name="f")
                person = Person.objects.create(name="p", firm=firm)
                Person.objects.create(name="q", firm=firm)
            exchange(a, b)
            with b.at_work():
                Firm.objects.create(name="g", boss=Person.objects.get(name="p"))
            exchange(a, b)
            with a.at_work():
                person.delete()
                Firm.objects.create(name="h")
            exchange(a, b)
            with b.at_work():
                assert list(Firm.objects.order_by("name").values_list("name", flat=True)) == ["f", "g", "h"]
                assert list(Person.objects.order_by("name").values_list("name", flat=True)) == ["p", "q"]
                named = f"shapes.Firm {Firm.objects.get(name='g').pk} "
            [(kind, reason)] = deferred(b)
            assert kind == "firms"
            assert reason.startswith("In people: The deletion of person")
            assert named in reason
            with a.at_work():
                assert list(Firm.objects.order_by("name").values_list("name", flat=True)) == ["f", "g", "h"]
            with b.at_work():
                Firm.objects.filter(name="g").update(boss=None)
            exchange(a, b)
            with b.at_work():
                assert list(Person.objects.values_list("name", flat=True)) == ["q"]
                assert Firm.objects.count() == 3
            assert deferred(b) == []
            assert level(a, b)

    def test_a_child_goes_with_the_child_that_it_refers_to(self, a, b):
        with sdata_sync.registered(Firm, FirmWithPeople):
            with a.at_work():
                firm = Firm.objects.create(name="f")
                Person.objects.create(name="p", firm=firm)
            exchange(a, b)
            with a.at_work():
                Person.objects.get().delete()
            exchange(a, b)
            with b.at_work():
                assert not Person.objects.exists()
                assert Firm.objects.exists()
            assert level(a, b)
