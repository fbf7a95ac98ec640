"""``$syncSource``, asynchronous operations and ``$syncResults``, as an engine elsewhere sees them."""

import time
from itertools import chain
from uuid import UUID
from xml.etree import ElementTree

import pytest

from sdata_sync.atom.entry import ReceivedResult
from sdata_sync.models import Operation, Run, TrackedResource
from sdata_sync.models.operation import Phase
from sdata_sync.registry import registry
from sdata_sync.sync import runs
from sdata_sync.sync.operations import carry_out
from sdata_sync.sync.stamp.scan import track_existing
from testproject.crm.models import Account

from ..wire import APP1, APP2, ENTRY, FEED, NS, PATH, UUIDS, diagnosis, digest_entry, digest_xml, entry_xml, feed_xml

pytestmark = pytest.mark.django_db

ACCOUNTS = registry.of_kind("accounts")


def ask(client, *known, query="", path=PATH):
    return client.post(f"{path}/$syncSource{query}", data=digest_entry(*known), content_type=ENTRY)


def local(url: str) -> str:
    assert url.startswith("http://www.example.com/")
    return url.removeprefix("http://www.example.com")


def read(response) -> tuple[list[str], str, ElementTree.Element]:
    """The names of a page's accounts, the next link, the feed."""
    assert response.status_code == 200, response.content
    root = ElementTree.fromstring(response.content)
    names = [e.text for e in root.iter("{http://schemas.sage.com/myContract}name")]
    following = [link.get("href") for link in root.findall("atom:link", NS) if link.get("rel") == "next"]
    return names, (following or [""])[0], root


def read_all(client, response) -> list[list[str]]:
    pages = []
    while True:
        names, following, _ = read(response)
        pages.append(names)
        if not following:
            return pages
        response = client.get(local(following))


def number(root, name) -> int:
    return int(root.findtext(f"{{http://a9.com/-/spec/opensearch/1.1/}}{name}"))


def made(count: int) -> list[Account]:
    return [Account.objects.create(name=f"a{n}") for n in range(count)]


class TestSynchronous:
    def test_all_of_it(self, peer_client):
        made(3)
        names, following, root = read(ask(peer_client))
        assert (names, following) == (["a0", "a1", "a2"], "")
        assert root.findtext("sync:syncMode", namespaces=NS) == "catchUp"
        assert number(root, "totalResults") == 3
        assert Operation.objects.count() == 0

    def test_only_what_is_lacking(self, peer_client):
        made(3)
        assert read(ask(peer_client, (APP2, 3)))[0] == ["a2"]
        assert read(ask(peer_client, (APP2, 4)))[0] == []

    def test_page_by_page(self, peer_client):
        made(25)
        pages = read_all(peer_client, ask(peer_client, query="?count=10"))
        assert [len(page) for page in pages] == [10, 10, 5]
        assert list(chain(*pages)) == [f"a{n}" for n in range(25)]

    def test_rows_changed_while_paging_are_neither_missed_nor_sent_twice(self, peer_client):
        rows = made(25)
        first = ask(peer_client, query="?count=10")
        names, following, root = read(first)
        rows[2].save()
        rows[15].name = "changed"
        rows[15].save()
        Account.objects.create(name="new")
        names += chain(*read_all(peer_client, peer_client.get(local(following))))
        assert names == [f"a{n}" for n in range(25) if n != 15]
        # Whoever takes the digest of the feed over still lacks what was changed.
        known = [(APP2, int(root.findtext(".//sync:tick", namespaces=NS)))]
        assert read(ask(peer_client, *known))[0] == ["changed", "new"]

    def test_pages_are_bounded_in_bytes(self, peer_client, settings):
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "MAX_BODY_BYTES": 20_000}
        for n in range(9):
            Account.objects.create(name=f"a{n}", notes="é" * (2_000 if n != 4 else 30_000))
        pages = read_all(peer_client, ask(peer_client))
        assert pages == [["a0", "a1"], ["a2", "a3"], ["a4"], ["a5", "a6"], ["a7", "a8"]]

    def test_start_index(self, peer_client):
        made(5)
        assert read(ask(peer_client, query="?startIndex=3&count=2"))[0] == ["a2", "a3"]
        assert read(ask(peer_client, query="?STARTINDEX=9"))[0] == []

    def test_count_has_a_maximum(self, peer_client, settings):
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "MAX_PAGE_SIZE": 4}
        made(5)
        names, following, root = read(ask(peer_client, query="?count=1000"))
        assert len(names) == 4
        assert number(root, "itemsPerPage") == 4
        assert "count=4" in following

    @pytest.mark.parametrize("query", ["?count=0", "?count=many", "?startIndex=-1", "?place=x"])
    def test_nonsense(self, peer_client, query):
        made(1)
        response = ask(peer_client, query=query)
        assert response.status_code == 400
        assert "Expected" in diagnosis(response)[1]

    def test_rows_from_before_the_installation(self, peer_client):
        Account.objects.bulk_create([Account(name=f"old {n}") for n in range(7)])
        assert TrackedResource.objects.count() == 0
        assert sorted(read(ask(peer_client))[0]) == [f"old {n}" for n in range(7)]
        assert track_existing(ACCOUNTS) == 0

    def test_needs_the_permission(self, client, engineer, peer_client):
        assert ask(client).status_code == 401
        engineer.user_permissions.clear()
        assert ask(peer_client).status_code == 403


class TestAsynchronous:
    """The thread that carries an operation out is not seen here (there are live tests for that)."""

    def test_a_source(self, peer_client):
        made(12)
        response = ask(peer_client, query="?trackingID=Run-1&runName=n&runStamp=soon&count=5")
        assert response.status_code == 202
        location = response.headers["Location"]
        assert location == f"http://www.example.com{PATH}/$syncSource('Run-1')"
        tracking = ElementTree.fromstring(response.content)
        assert tracking.tag == f"{{{NS['sdata']}}}tracking"
        assert int(tracking.findtext("sdata:pollingMillis", namespaces=NS)) > 0
        assert peer_client.get(local(location)).status_code == 202
        carry_out(Operation.objects.get().pk)
        pages = read_all(peer_client, peer_client.get(local(location), {"count": 5}))
        assert [len(page) for page in pages] == [5, 5, 2]

    def test_a_call_that_is_repeated_starts_nothing(self, peer_client):
        made(1)
        for query in ("?trackingID=x", "?TrackingId=X"):
            assert ask(peer_client, query=query).status_code == 202
        assert Operation.objects.count() == 1

    def test_deleted_and_readable_for_a_minute(self, peer_client, monkeypatch):
        made(3)
        ask(peer_client, query="?trackingID=x")
        carry_out(Operation.objects.get().pk)
        response = peer_client.delete(f"{PATH}/$syncSource('X')")
        assert (response.status_code, response.headers["Content-Type"]) == (200, "text/plain")
        assert len(read(peer_client.get(f"{PATH}/$syncSource?trackingID=x"))[0]) == 3
        Operation.objects.update(deleted_at=int(time.time() * 1000) - 61_000)
        assert peer_client.get(f"{PATH}/$syncSource('x')").status_code == 404
        ask(peer_client, query="?trackingID=y")
        assert [operation.key for operation in Operation.objects.all()] == ["y"]

    def test_a_target(self, peer_client):
        feed = feed_xml(digest_xml((APP1, 7)), entry_xml(UUIDS[0], APP1, 1, "<name>n</name>"), mode="catchUp")
        post = f"{PATH}/$syncTarget?trackingID=t"
        for _ in range(2):
            response = peer_client.post(post, data=feed, content_type=FEED)
            assert response.status_code == 202
        carry_out(Operation.objects.get().pk)
        assert Account.objects.get().name == "n"
        results = peer_client.get(local(response.headers["Location"]))
        assert b"<http:httpStatus>200</http:httpStatus>" in results.content
        assert results.headers["Content-Type"].startswith(FEED)
        assert Operation.objects.get().body is None

    def test_a_target_that_refuses(self, peer_client):
        feed = feed_xml(digest_xml((APP1, 7)), entry_xml(UUIDS[0], APP1, 5, "<name>n</name>"))
        peer_client.post(f"{PATH}/$syncTarget?trackingID=t", data=feed, content_type=FEED)
        carry_out(Operation.objects.get().pk)
        response = peer_client.get(f"{PATH}/$syncTarget('t')")
        assert response.status_code == 400
        assert diagnosis(response)[0] == "TickGap"

    def test_one_whose_worker_died_is_taken_up_again(self, peer_client, django_capture_on_commit_callbacks):
        made(1)
        ask(peer_client, query="?trackingID=x")
        running = Operation.objects.filter(key="x")
        running.update(phase=Phase.RUNNING, holder="elsewhere/1/1", held_until=int(time.time() * 1000) + 60_000)
        with django_capture_on_commit_callbacks() as callbacks:
            assert peer_client.get(f"{PATH}/$syncSource('x')").status_code == 202
        assert callbacks == []
        running.update(held_until=int(time.time() * 1000) - 1)
        with django_capture_on_commit_callbacks() as callbacks:
            peer_client.get(f"{PATH}/$syncSource('x')")
        assert len(callbacks) == 1
        carry_out(Operation.objects.get().pk)
        assert peer_client.get(f"{PATH}/$syncSource('x')").status_code == 200

    def test_an_id_that_needs_quoting(self, peer_client):
        made(1)
        response = ask(peer_client, query="?trackingID=it%27s%20%C3%A9")
        carry_out(Operation.objects.get().pk)
        assert peer_client.get(local(response.headers["Location"])).status_code == 200

    def test_an_id_that_nobody_gave(self, peer_client):
        assert peer_client.get(f"{PATH}/$syncSource('nobody')").status_code == 404
        assert peer_client.get(f"{PATH}/$syncSource").status_code == 404


class TestResults:
    def test_counted_and_kept_where_something_is_to_say(self, peer_client):
        def result(uuid, status, message):
            return (
                f'<entry xmlns:http="{NS["http"]}"><http:httpStatus>{status}</http:httpStatus>'
                f"<http:httpMessage>{message}</http:httpMessage><sdata:diagnosis><sdata:message>why</sdata:message>"
                f'</sdata:diagnosis><sdata:payload><account sdata:uuid="{uuid}"/></sdata:payload></entry>'
            )

        def post(*entries):
            feed = f'<feed xmlns="{NS["atom"]}" xmlns:sdata="{NS["sdata"]}">{digest_xml((APP1, 2), origin=APP1)}'
            url = f"{PATH}/$syncResults?runName=Nightly&runStamp=2009-10-14T08:51:02"
            return peer_client.post(url, data=f"{feed}{''.join(entries)}</feed>", content_type=FEED)

        assert post(result(UUIDS[0], 200, "OK"), result(UUIDS[1], 409, "Conflict")).status_code == 200
        run = Run.objects.get()
        assert (run.name, run.stamp, run.target, run.applied, run.exceptions) == (
            "Nightly", "2009-10-14T08:51:02", APP1, 1, 1,
        )  # fmt: skip
        [kept] = run.results.all()
        assert (str(kept.uuid).upper(), kept.status, kept.message, kept.diagnosis) == (
            UUIDS[1].upper(), 409, "Conflict", "why",
        )  # fmt: skip
        assert post(result(UUIDS[1], 200, "OK")).status_code == 200
        assert not run.results.exists()
        assert post("<entry/>").status_code == 400

    def test_results_are_kept_again_when_earlier_ones_have_been_settled(self, monkeypatch):
        """A run of many pages counts its exceptions; results that later pages delete make room for new ones."""
        monkeypatch.setattr(runs, "KEPT_RESULTS", 2)

        def record(*pairs):
            results = [ReceivedResult(uuid=UUID(uuid), status=s, message="", diagnoses=()) for uuid, s in pairs]
            runs.record_results(ACCOUNTS, results, label=runs.RunLabel(name="r", stamp="s"), target=APP1)

        record((UUIDS[0], 409), (UUIDS[1], 409))
        record((UUIDS[0], 200), (UUIDS[1], 200))
        record((UUIDS[2], 409))
        assert [str(result.uuid).upper() for result in Run.objects.get().results.all()] == [UUIDS[2].upper()]


@pytest.mark.parametrize("max_bytes", [60_000, 120_000, 300_000])
def test_no_page_is_larger_than_the_target_accepts(peer_client, max_bytes):
    for n in range(12):
        Account.objects.create(name=f"a{n}", notes="x" * 15_000)
    pages, response = 0, ask(peer_client, query=f"?maxBytes={max_bytes}&count=100")
    while True:
        _, following, _ = read(response)
        pages += 1
        assert len(response.content) <= max_bytes
        if not following:
            break
        response = peer_client.get(local(following))
    assert pages > 1 or max_bytes == 300_000
