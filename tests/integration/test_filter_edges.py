"""The edges of filters: what leaked, was lost or never withdrawn once, each in a history of its own."""

from contextlib import suppress
from uuid import uuid4

import pytest
from django.test import Client

from sdata_sync.core.digest import Digest
from sdata_sync.delivery.client import PeerClient
from sdata_sync.delivery.progress import Progress
from sdata_sync.delivery.session import PeerSession
from sdata_sync.exceptions import PeerUnreachable
from sdata_sync.models import DeferredEntry, DigestEntry, Peer, ScopedResource, TrackedResource
from sdata_sync.sync.select import feed as sources
from sdata_sync.sync.stamp.purge import purge
from sdata_sync.sync.stamp.scan import scan
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..talk import pull, push
from ..wire import ENTRY, FEED, digest_entry, digest_xml, entry_xml, feed_xml
from .test_filters import REGIONS, accounts, edit, nodes, north, office, other  # noqa: F401
from .test_reading import link_entry
from .test_related_edges import enforce_foreign_keys, of, put_link, uuid_of

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("filter_edges"),
]
PATH = "/sdata/myApp2/myContract/-/accounts"


def client_of(node):
    return Client(headers={"authorization": f"Token {node.token}"})


def refused_by(office, other, **values):
    """An edit at other that the office cannot write, and keeps."""
    edit(other, **values)
    with other.at_work():
        Account.objects.filter(name=values["name"]).update(phone="0" * 60)
        scan(of("accounts"))
    push(other, office)
    with office.at_work():
        assert DeferredEntry.objects.count() == 1


def test_F1_a_part_does_not_say_so_when_it_is_pulled(office, north, other):
    """The office is restored from a backup of before Otto came, and pulls from north, which never had him."""
    push(office, north)
    with other.at_work():
        Account.objects.create(name="Otto", city="south")
    push(other, office)
    push(office, north)
    with office.at_work():
        Account.objects.filter(name="Otto").delete()
        TrackedResource.objects.filter(endpoint__url__contains="node2").delete()
        DigestEntry.objects.filter(endpoint__url__contains="node2").delete()
    edit(north, "Anne", phone="1")
    pull(office, north)
    push(other, office)
    assert ("Otto", "south") in accounts(office)


def test_F2_a_change_of_scope_wins_over_an_edit(office, north, other):
    """Nobody edited Anne at the office; she only left what north may have."""
    office.settings["CONFLICT_PRIORITY"] = 1
    push(office, other)
    push(office, north)
    edit(other, "Anne", phone="edited at other")
    with other.at_work():
        assign_ticks(of("accounts"))
    REGIONS["node1"] = ["south"]
    push(office, north)
    push(other, office)
    push(office, other)
    for node in (office, other):
        with node.at_work():
            assert Account.objects.get(name="Anne").phone == "edited at other"


def test_F3_a_change_of_scope_overrules_a_version_that_waits(office, north, other):
    push(office, other)
    refused_by(office, other, name="Bert", notes="by other")
    push(office, north)
    REGIONS["node1"] = ["north", "south"]
    push(office, north)
    with office.at_work():
        assert DeferredEntry.objects.count() == 1
    push(office, other)
    with other.at_work():
        assert Account.objects.get(name="Bert").notes == "by other"


def test_F4_renamed_and_out_of_scope_at_once(office, north):
    push(office, north)
    put_link(office, "accounts", uuid4(), name="Anne")
    edit(office, "Anne", city="south")
    push(office, north)
    push(north, office)
    push(office, north)
    assert accounts(north) == []


def test_F5_whoever_claims_to_have_a_row_is_shown_it(office, north):
    """It opens an operation, says that it has Bert, whose uuid orders and contacts tell it, and reads the page."""
    push(office, north)
    uuid = uuid_of(office, "accounts", name="Bert")
    client, mine = client_of(north), f"{north.base_url}/accounts"
    with office.at_work():
        client.post(f"{PATH}/$syncSource?trackingID=t", digest_entry(origin=mine), content_type=ENTRY)
        assert b"Bert" not in client.get(f"{PATH}/$syncSource('t')").content
        known = entry_xml(uuid, f"{office.base_url}/accounts", 1, "<name>?</name>")
        feed = feed_xml(digest_xml((mine, 1), origin=mine), known, mode="catchUp")
        assert client.post(f"{PATH}/$syncTarget", feed, content_type=FEED).status_code == 200
        assert b"Bert" not in client.get(f"{PATH}/$syncSource('t')").content


def test_F6_what_leaves_while_pages_are_posted(office, north, monkeypatch):
    push(office, north)
    office.settings["PAGE_SIZE"] = 1
    with office.at_work():
        for name in ("A1", "A2"):
            Account.objects.create(name=name, city="north")
            assign_ticks(of("accounts"))
    usual, posted = PeerClient.post_page, []

    def post_page(self, kind, feed, **options):
        posted.append(b"".join(feed).decode())
        answer = usual(self, kind, [posted[-1].encode()], **options)
        if len(posted) == 1:
            edit(office, "Anne", city="south", notes="a secret of the south")
        return answer

    monkeypatch.setattr(PeerClient, "post_page", post_page)
    with office.at_work(), PeerSession(Peer.objects.get(name="node1")) as session:
        session.deliver([of("accounts")])
    assert len(posted) > 1
    assert not any("a secret of the south" in feed for feed in posted)


def test_F7_a_version_that_waits_belongs_elsewhere(office, north, other):
    push(office, other)
    push(office, north)
    refused_by(office, other, name="Anne", city="south", notes="a secret of the south")
    push(office, north)
    with north.at_work():
        assert not any("a secret of the south" in entry.payload for entry in DeferredEntry.objects.all())


def test_F8_put_takes_the_uuid_of_a_row_out_of_sight(office, north):
    push(office, north)
    uuid, client = uuid_of(office, "accounts", name="Bert"), client_of(north)
    with office.at_work():
        anne, bert = Account.objects.order_by("name")
        assert client.get(f"{PATH}/$linked('{uuid}')").status_code == 404
        client.put(f"{PATH}/$linked('{uuid}')", link_entry(anne.pk), content_type=ENTRY)
        assert TrackedResource.objects.get(uuid=uuid).local_key == str(bert.pk)


def test_F9_purging_a_tombstone_that_a_peer_had(office, north):
    enforce_foreign_keys(office, north)
    push(office, north)
    with office.at_work():
        Account.objects.get(name="Anne").delete()
    push(office, north)
    with office.at_work():
        purge(of("accounts"), {}, older_than=None, dry_run=False)


def test_F10_a_post_tells_the_key_of_a_row_out_of_sight(office, north):
    push(office, north)
    uuid, client = uuid_of(office, "accounts", name="Bert"), client_of(north)
    with office.at_work():
        new, bert = Account.objects.create(name="New", city="north"), Account.objects.get(name="Bert")
        TrackedResource.objects.filter(local_key=str(new.pk)).delete()
        response = client.post(f"{PATH}/$linked", link_entry(new.pk, uuid), content_type=ENTRY)
        assert f"accounts('{bert.pk}')".encode() not in response.content


def test_F11_the_total_counts_what_is_out_of_sight(office, north):
    with office.at_work():
        body = digest_entry(origin=f"{north.base_url}/accounts")
        assert b"totalResults>1<" in client_of(north).post(f"{PATH}/$syncSource", body, content_type=ENTRY).content


def exchange(how, office, north):
    """What three passes come to; the first may leave something to the next."""
    for _ in range(3):
        if how == "push":
            push(office, north)
        elif how == "pull":
            pull(north, office)
        else:
            office.settings["HEARTBEAT_SECONDS"] = 0.001
            with office.at_work(), PeerSession(Peer.objects.get(name=north.alias)) as session:
                session.compare_and_pull(of("accounts"))
                assert session.deliver([of("accounts")]) is None


def nothing_is_owed(office):
    with office.at_work():
        return not ScopedResource.objects.filter(needs_resend=True).exists()


EVERY_WAY = pytest.mark.parametrize("how", ["push", "pull", "immediate"])


@EVERY_WAY
def test_F12_a_filter_that_comes_later(office, north, other, how):
    """What a peer was shown before there was a filter is withdrawn."""
    del REGIONS["node1"]
    exchange(how, office, north)
    assert len(accounts(north)) == 2
    with office.at_work():
        Account.objects.create(name="Carl", city="south")
    REGIONS["node1"] = ["north"]
    exchange(how, office, north)
    assert accounts(north) == [("Anne", "north")]
    assert len(accounts(office)) == 3
    exchange("push", office, north)
    assert nothing_is_owed(office)
    push(office, other)
    assert len(accounts(other)) == 3


@pytest.mark.parametrize("is_numbered", [True, False])
@EVERY_WAY
def test_F12_also_of_what_was_changed_since(office, north, how, is_numbered):
    """The peer has an older version than the one that it may not have, and would keep it."""
    del REGIONS["node1"]
    exchange(how, office, north)
    edit(office, "Bert", phone="1")
    if is_numbered:
        with office.at_work():
            assign_ticks(of("accounts"))
    REGIONS["node1"] = ["north"]
    exchange(how, office, north)
    assert accounts(north) == [("Anne", "north")]


@EVERY_WAY
def test_F12_also_of_what_was_deleted_since(office, north, how):
    del REGIONS["node1"]
    exchange(how, office, north)
    with office.at_work():
        Account.objects.all().delete()
    REGIONS["node1"] = ["north"]
    exchange(how, office, north)
    assert accounts(north) == []


def test_F12_at_first_contact_nobody_is_told_of_what_it_never_had(office, north):
    """Not even of a uuid, although both sides have rows and digests of their own."""
    with north.at_work():
        Account.objects.create(name="Nora", city="north")
    push(north, office)
    push(office, north)
    assert accounts(north) == [("Anne", "north"), ("Nora", "north")]
    with north.at_work():
        assert TrackedResource.objects.filter(kind="accounts").count() == 2


@pytest.mark.parametrize("how", ["push", "pull"])
def test_F13_what_somebody_without_a_filter_was_quicker_to_deliver(office, north, other, how):
    push(office, other)
    push(other, north)
    assert len(accounts(north)) == 2
    exchange(how, office, north)
    assert accounts(north) == [("Anne", "north")]
    assert len(accounts(office)) == len(accounts(other)) == 2


@EVERY_WAY
def test_F14_let_in_after_an_empty_part(office, north, how):
    REGIONS["node1"] = ["west"]
    exchange(how, office, north)
    assert accounts(north) == []
    del REGIONS["node1"]
    exchange(how, office, north)
    assert len(accounts(north)) == 2
    assert nothing_is_owed(office)


@EVERY_WAY
def test_F15_let_in_and_shut_out_again(office, north, how, monkeypatch):
    exchange(how, office, north)
    del REGIONS["node1"]
    exchange(how, office, north)
    assert len(accounts(north)) == 2
    with office.at_work():
        assert not ScopedResource.objects.exists(), "nothing is remembered of a peer that has everything"
    REGIONS["node1"] = ["north"]
    exchange(how, office, north)
    assert accounts(north) == [("Anne", "north")]


def test_F15_while_it_is_away(office, north, monkeypatch):
    """It was let in, and shut out again before it could be told that it has the whole."""
    push(office, north)
    del REGIONS["node1"]
    push(office, north)
    assert len(accounts(north)) == 2

    def is_away(*arguments, **options):
        raise PeerUnreachable("It is away.")

    with monkeypatch.context() as patched:
        patched.setattr(PeerClient, "post_page", is_away)
        with (
            office.at_work(),
            PeerSession(Peer.objects.get(name=north.alias)) as session,
            pytest.raises(PeerUnreachable),
        ):
            session.catch_up(of("accounts"), Progress())
    REGIONS["node1"] = ["north"]
    exchange("push", office, north)
    assert accounts(north) == [("Anne", "north")]


@pytest.mark.parametrize("how", ["push", "pull"])
def test_F16_let_in_between_two_pages(office, north, how, monkeypatch):
    """The feed was selected for a part, and does not say at its end that it was the whole."""
    for node in (office, north):
        node.settings["PAGE_SIZE"] = node.settings["MAX_PAGE_SIZE"] = 1
    with office.at_work():
        for name in ("Dora", "Emil"):
            Account.objects.create(name=name, city="north")
    usual, pages = sources.SourceFeed.page, []

    def let_in():
        pages.append(1)
        if len(pages) == 2:
            del REGIONS["node1"]

    def page(self, **options):
        let_in()
        return usual(self, **options)

    usual_post = PeerClient.post_page

    def post_page(self, *arguments, **options):
        let_in()
        return usual_post(self, *arguments, **options)

    monkeypatch.setattr(sources.SourceFeed, "page", page)
    monkeypatch.setattr(PeerClient, "post_page", post_page)
    exchange(how, office, north)
    assert accounts(north) == accounts(office)


@pytest.fixture
def many_out_of_sight(office, north):
    """The north has its part, and has not heard of the rest, which fills several pages."""
    for node in (office, north):
        node.settings["PAGE_SIZE"] = node.settings["MAX_PAGE_SIZE"] = 3
    with office.at_work():
        for number in range(20):
            Account.objects.create(name=f"Otto {number:02}", city="south")
    push(office, north)


@pytest.mark.usefixtures("many_out_of_sight")
@pytest.mark.parametrize("how", ["push", "pull"])
def test_F17_many_are_let_in(office, north, how):
    """More than a page of what it had not: each is sent once, in one pass."""
    assert len(accounts(north)) == 1
    del REGIONS["node1"]
    watch = (push(office, north) if how == "push" else pull(north, office))["accounts"]
    assert len(accounts(north)) == 22
    assert watch.entries == 21
    assert nothing_is_owed(office)


@pytest.mark.usefixtures("many_out_of_sight")
def test_F17_what_is_owed_goes_on_where_it_was_cut_off(office, north, monkeypatch):
    del REGIONS["node1"]
    usual, sent = PeerClient.post_page, []

    def post_page(self, *arguments, **options):
        sent.append(1)
        if len(sent) % 3 == 0:
            raise PeerUnreachable("It is away.")
        return usual(self, *arguments, **options)

    monkeypatch.setattr(PeerClient, "post_page", post_page)
    for _ in range(5):
        with suppress(AssertionError):
            push(office, north)
    assert len(accounts(north)) == 22
    assert len(sent) <= 7 + 5, "seven pages of three, one to say that it is the whole, and those that failed"


def test_F18_a_peer_that_does_not_say_that_it_has_a_part_loses_an_answer(office, north, monkeypatch):
    """It has taken the page, and its digest promises everything: still it is not told of what it was not shown."""
    monkeypatch.setattr(Digest, "as_part_of", lambda self, endpoint: self)
    usual, feeds = PeerClient.post_page, []

    def post_page(self, kind, feed, **options):
        feeds.append(b"".join(feed))
        answer = usual(self, kind, [feeds[-1]], **options)
        if len(feeds) == 1:
            raise PeerUnreachable("The answer is lost.")
        return answer

    monkeypatch.setattr(PeerClient, "post_page", post_page)
    with office.at_work(), PeerSession(Peer.objects.get(name=north.alias)) as session:
        assert session.deliver([of("accounts")]) is not None
        assert session.deliver([of("accounts")], impatient=True) is None
    uuid = str(uuid_of(office, "accounts", name="Bert")).encode()
    assert feeds
    assert not any(uuid in feed for feed in feeds)
