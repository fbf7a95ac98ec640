"""Texts of other nodes are texts: they begin no line of a log, move no cursor, and are no formula of a spreadsheet."""

import csv
import logging
from uuid import uuid4

import pytest
from django.core.management import call_command

from sdata_sync.core.text import fold, has_unseen, one_line
from sdata_sync.delivery.session import PeerSession
from sdata_sync.exceptions import SyncError
from sdata_sync.management.commands import sync_link
from sdata_sync.models import DeferredEntry, Endpoint, Peer, Run, Stream, TrackedResource
from sdata_sync.registry import registry
from testproject.crm.models import Account

from ..wire import APP1, FEED, PATH, UUIDS, diagnosis, digest_entry, digest_xml, entry_xml, feed_xml, post, results
from .test_odd_peers import odd, serve  # noqa: F401  fixtures

pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("odd_peers")]
ACCOUNTS = registry.of_kind("accounts")
EVIL = "first\nCRITICAL: all is lost \x1b[2J\u202e\u2028end\r\x85"
EVIL_XML = "first&#10;CRITICAL: all is lost &#x9b;2J\u202e\u2028end&#13;"


def assert_harmless(text):
    assert not has_unseen(text), repr(text)


@pytest.mark.parametrize("text", ["plain", "größe", EVIL, "a\tb", "\x7f", "\u2066"])
def test_one_line(text):
    assert_harmless(one_line(text))
    assert_harmless(str(SyncError(text)))


class TestADiagnosis:
    @pytest.mark.parametrize("status", [400, 403, 500])
    def test_reaches_no_log_and_no_terminal_as_it_is(self, odd, caplog, capsys, status):
        caplog.set_level(logging.DEBUG, "sdata_sync")
        said = (
            '<sdata:diagnosis xmlns:sdata="http://schemas.sage.com/sdata/2008/1"><sdata:severity>error</sdata:severity>'
            f"<sdata:message>{EVIL_XML}</sdata:message></sdata:diagnosis>"
        )
        odd.digest = lambda server: (status, {"Content-Type": "application/xml"}, said)
        Account.objects.create(name="One")
        with PeerSession(odd.peer) as session:
            session.deliver([ACCOUNTS])
        error = Stream.objects.get().last_error
        assert "all is lost" in error
        assert_harmless(error)
        for record in caplog.records:
            assert_harmless(record.getMessage())
        with pytest.raises(SystemExit):
            call_command("sync_status", "--check")
        output = capsys.readouterr().out
        assert "all is lost" in output or "odd" in output
        assert all(not has_unseen(line) for line in output.split("\n"))

    def test_of_a_single_result(self, odd, caplog):
        caplog.set_level(logging.DEBUG, "sdata_sync")
        Account.objects.create(name="One")
        odd.digest = lambda server: (200, {}, digest_entry((APP1, 1), origin=server.endpoint))
        result = (
            f'<feed xmlns="http://www.w3.org/2005/Atom" xmlns:http="http://schemas.sage.com/sdata/http/2008/1" '
            f'xmlns:sdata="http://schemas.sage.com/sdata/2008/1"><entry><http:httpStatus>409</http:httpStatus>'
            f"<http:httpMessage>{EVIL_XML}</http:httpMessage><sdata:diagnosis><sdata:message>{EVIL_XML}</sdata:message>"
            f'</sdata:diagnosis><sdata:payload><account sdata:uuid="{uuid4()}"/></sdata:payload></entry></feed>'
        )
        odd.target = lambda server: (200, {}, result)
        with PeerSession(odd.peer) as session:
            session.deliver([ACCOUNTS])
        for record in caplog.records:
            assert_harmless(record.getMessage())


class TestWhatIsPosted:
    def test_values_of_a_deferred_entry(self, peer_client, caplog):
        caplog.set_level(logging.DEBUG, "sdata_sync")
        content = f"<name>x</name><creditLimit>{EVIL_XML}</creditLimit>"
        [said] = results(post(peer_client, feed_xml(digest_xml((APP1, 2)), entry_xml(UUIDS[0], APP1, 1, content))))
        assert said.status == 202
        assert_harmless(DeferredEntry.objects.get().reason)
        for record in caplog.records:
            assert_harmless(record.getMessage())

    def test_the_name_of_a_user(self, peer_client):
        entry = entry_xml(UUIDS[0], APP1, 1, "<name>x</name>", user=EVIL_XML)
        results(post(peer_client, feed_xml(digest_xml((APP1, 2)), entry)))
        assert_harmless(TrackedResource.objects.get().user)

    @pytest.mark.parametrize("where", ["origin", "digest", "entry"])
    def test_an_endpoint_with_control_characters_is_refused(self, peer_client, where):
        evil = "http://x/a&#10;b/-/accounts"
        digest = digest_xml((evil if where == "digest" else APP1, 2), origin=evil if where == "origin" else APP1)
        response = post(peer_client, feed_xml(digest, entry_xml(UUIDS[0], evil if where == "entry" else APP1, 1)))
        assert (response.status_code, diagnosis(response)[0]) == (400, "BadFeed")
        assert not Endpoint.objects.filter(url__contains="x/a").exists()

    def test_the_name_of_a_run(self, peer_client):
        feed = feed_xml(digest_xml((APP1, 1), origin=APP1))
        response = peer_client.post(f"{PATH}/$syncResults?runName=a%0Ab%1b&runStamp=c%0D", data=feed, content_type=FEED)
        assert response.status_code == 200
        assert_harmless(Run.objects.get().name + Run.objects.get().stamp)


class TestCase:
    """U+0130 has two characters in lower case; a column that holds 500 of it does not hold its lower case."""

    LONG = "http://x/" + "\u0130" * 300 + "/-/accounts"

    def test_an_endpoint_that_grows_in_lower_case_is_refused(self, peer_client):
        feed = feed_xml(digest_xml((APP1, 2)), entry_xml(UUIDS[0], self.LONG, 1, "<name>x</name>"))
        response = post(peer_client, feed)
        assert (response.status_code, diagnosis(response)[0]) == (400, "BadFeed")
        response = post(peer_client, feed_xml(digest_xml((self.LONG, 2))))
        assert response.status_code == 400

    def test_a_short_one_is_one_endpoint_in_each_spelling(self, peer_client):
        one, other = "http://x/\u0130\u00df/-/accounts", "http://X/i\u0307SS/-/accounts"
        assert fold(one) == fold(other)
        results(post(peer_client, feed_xml(digest_xml((one, 2)), entry_xml(UUIDS[0], one, 1, "<name>x</name>"))))
        [said] = results(
            post(peer_client, feed_xml(digest_xml((other, 2)), entry_xml(UUIDS[0], other, 1, "<name>x</name>")))
        )
        assert said.message == "Unchanged"
        assert Endpoint.objects.filter(url__startswith="http://x/").count() == 1

    @pytest.mark.parametrize("operation", ["$syncTarget", "$syncSource"])
    def test_a_tracking_id(self, peer_client, operation):
        body = feed_xml(digest_xml((APP1, 1))) if operation == "$syncTarget" else digest_entry()
        kind = FEED if operation == "$syncTarget" else "application/atom+xml; type=entry"
        response = peer_client.post(f"{PATH}/{operation}?trackingID={'%C4%B0' * 150}", data=body, content_type=kind)
        assert response.status_code == 400


def test_a_cell_of_a_csv_file_is_no_formula(tmp_path):
    from sdata_sync.delivery.match import Candidate, Certainty

    keys = ["=cmd()", "+1", "-1", "@x", "\tx", "'quoted", "plain"]
    path = tmp_path / "c.csv"
    sync_link.write_candidates(
        path,
        [
            Candidate(local_key=key, uuid=uuid4(), score=1.0, certainty=Certainty.CERTAIN, local=key, remote="=x")
            for key in keys
        ],
    )
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for cell in row.values():
                assert cell[:1] not in ("=", "+", "-", "@", "\t")
    assert [key for key, _ in sync_link.read_pairs(path)] == keys


def test_a_name_of_a_peer_in_another_spelling_is_not_that_peer(db):
    """PostgreSQL takes a dotless i in upper case for the upper case of i."""
    Peer.objects.create(name="one", url="http://branci.example.com/a/b/-")
    assert Peer.at("http://BRANCI.example.com/a/b/-/accounts") is not None
    assert Peer.at("http://branc\u0131.example.com/a/b/-/accounts") is None
