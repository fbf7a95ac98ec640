"""Peers that answer oddly or mean harm: real servers on loopback that say what a test has them say."""

import gzip
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sdata_sync.delivery.audit import verify
from sdata_sync.delivery.catchup import catch_up
from sdata_sync.delivery.client import MAX_EMPTY_PAGES, PeerClient
from sdata_sync.delivery.match import find_candidates
from sdata_sync.delivery.progress import Progress
from sdata_sync.delivery.session import PeerSession
from sdata_sync.exceptions import PeerError
from sdata_sync.models import Peer, Stream
from sdata_sync.registry import registry
from sdata_sync.sync.log.digests import load_digest
from testproject.crm.models import Account

from ..wire import APP1, UUIDS, digest_entry, digest_xml, entry_xml, feed_xml

pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("odd_peers")]
ACCOUNTS = registry.of_kind("accounts")
TOKEN = "swordfish"
PATH = "/sdata/odd/-/accounts"


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, str]] = []
        self.pages = 0
        #: What is answered to a request: status, headers, body. Both take the server.
        self.digest = lambda server: (200, {}, digest_entry((APP1, 50), origin=server.endpoint))
        self.source = lambda server: (200, {}, server.page())
        self.target = lambda server: (200, {}, "")

    def handle_error(self, request, client_address):
        """Say nothing: clients hang up on what is too much for them."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/sdata/odd/-"

    @property
    def endpoint(self):
        return f"{self.url}/accounts"

    def page(self, *entries, next_url=""):
        digest = digest_xml((APP1, 50), origin=self.endpoint)
        return feed_xml(digest, *entries, mode="catchUp", next_url=next_url)

    def link(self, number):
        return f"{self.endpoint}/$syncSource?page={number}"

    def has_been_asked_for(self, words):
        return any(words in path for _, path, _ in self.asked)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self):
        server = self.server
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        kind = "digest" if "$syncDigest" in self.path else "target" if "$syncTarget" in self.path else "source"
        status, headers, body = getattr(server, kind)(server)
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {"Content-Type": "application/atom+xml; type=feed", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    servers = []

    def start():
        server = Server()
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def odd(serve, settings):
    settings.SDATA_SYNC = {
        **settings.SDATA_SYNC,
        "CREDENTIALS": {"odd": {"token": TOKEN}},
        "MAX_BODY_BYTES": 1_000_000,
        "HEARTBEAT_SECONDS": 1,
    }
    server = serve()
    server.peer = Peer.objects.create(name="odd", url=server.url, credentials="odd")
    return server


def watch(*_) -> Progress:
    return Progress()


def pulled(odd) -> str:
    """Pull, and return the error; what was asked of the server is among ``odd.asked``."""
    peers = Peer.objects.filter(pk=odd.peer.pk)
    [passed] = catch_up(peers, [ACCOUNTS], directions=["pull"], make_progress=watch)
    return passed.error


def row(number=0):
    return entry_xml(UUIDS[number], APP1, 5, "<name>Received</name>")


class TestLinks:
    @pytest.mark.parametrize(
        "link",
        [
            "http://127.0.0.1:{other}/sdata/odd/-/accounts/$syncSource?page=2",
            "//127.0.0.1:{other}/sdata/odd/-/accounts",
            "http://{own}@127.0.0.1:{other}/sdata/odd/-/accounts",
            "http://user:word@127.0.0.1:{own}/sdata/odd/-/accounts",
            "http://127.0.0.1:{own}/admin/secrets",
            "http://127.0.0.1:{own}/sdata/odd/-/../../../admin/secrets",
            "http://127.0.0.1:{own}/sdata/odd/-/%2E%2e/secrets",
            "http://127.0.0.1:{own}/sdata/odd/-elsewhere/secrets",
            "file:///etc/passwd",
            "http://[/secrets",
            "x" * 3000,
        ],
    )
    def test_are_not_followed_out_of_the_dataset(self, odd, serve, link):
        elsewhere = serve()
        url = link.format(own=odd.server_port, other=elsewhere.server_port)
        odd.source = lambda server: (200, {}, server.page(row(), next_url=url))
        assert "xpected a" in pulled(odd)
        assert elsewhere.asked == []
        assert not odd.has_been_asked_for("secrets")
        # What came before it was good, and stays.
        assert Account.objects.get().name == "Received"
        assert load_digest(ACCOUNTS).value.tick(APP1) == 6

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("kind", ["digest", "source"])
    def test_redirections_are_none_of_ours(self, odd, serve, kind, status):
        elsewhere = serve()
        setattr(odd, kind, lambda server: (status, {"Location": elsewhere.endpoint}, ""))
        assert str(status) in pulled(odd)
        assert elsewhere.asked == []

    def test_of_an_operation_that_is_elsewhere(self, odd, serve):
        elsewhere = serve()
        odd.source = lambda server: (202, {"Location": elsewhere.endpoint}, "")
        assert "Expected a URL below" in pulled(odd)
        assert elsewhere.asked == []

    def test_of_an_operation_that_is_nowhere(self, odd):
        odd.source = lambda server: (202, {}, "")
        assert "expected a Location with the answer 202" in pulled(odd)


def ask_for_all(odd, how):
    with PeerSession(odd.peer) as session, pytest.raises(PeerError) as raised:
        if how == "verify":
            verify(session.client(), odd.peer, ACCOUNTS, repair=False)
        else:
            find_candidates(session.client(), odd.peer, ACCOUNTS)
    return str(raised.value)


@pytest.mark.parametrize("how", ["pull", "verify", "link"])
class TestPages:
    def error(self, odd, how):
        return pulled(odd) if how == "pull" else ask_for_all(odd, how)

    def test_that_go_round_in_a_circle(self, odd, how):
        odd.source = lambda server: (200, {}, server.page(row(), next_url=server.link(1)))
        assert "leads to a page that was read before" in self.error(odd, how)

    def test_without_an_entry_for_ever(self, odd, how):
        def source(server):
            server.pages += 1
            assert server.pages < 2 * MAX_EMPTY_PAGES, "the test, at least, ends"
            return 200, {}, server.page(next_url=server.link(server.pages))

        odd.source = source
        assert "pages without an entry" in self.error(odd, how)
        assert odd.pages <= MAX_EMPTY_PAGES + 2

    @pytest.mark.parametrize(
        "body",
        [
            "",
            "<html><body>Please log in",
            '{"entries": []}',
            '<!DOCTYPE feed [<!ENTITY a "b">]><feed xmlns="http://www.w3.org/2005/Atom">&a;</feed>',
            '<feed xmlns="http://www.w3.org/2005/Atom"><entry/></feed>',
            b"\xff\xfe\x00",
            b"<" * 1_000_001,
        ],
        ids=["nothing", "a page to log in", "JSON", "entities", "a feed without a digest", "noise", "too much"],
    )
    def test_that_are_none(self, odd, how, body):
        odd.source = lambda server: (200, {}, body)
        assert self.error(odd, how)
        assert not Account.objects.exists()

    def test_that_unpack_into_a_flood(self, odd, how):
        flood = gzip.compress(b" " * 50_000_000)
        odd.source = lambda server: (200, {"Content-Encoding": "gzip"}, flood)
        assert "1000000" in self.error(odd, how).replace(",", "")

    def test_that_break_off(self, odd, how):
        odd.source = lambda server: (200, {"Content-Encoding": "gzip"}, gzip.compress(b"<feed>" * 100)[:20])
        assert self.error(odd, how)


class TestSecrets:
    @pytest.mark.parametrize("status", [401, 403, 500])
    def test_are_in_no_error_and_no_log(self, odd, caplog, status):
        caplog.set_level(logging.DEBUG)
        odd.digest = lambda server: (status, {}, f"<x>Refused: Token {TOKEN}</x>")
        assert TOKEN not in pulled(odd)
        Account.objects.create(name="One")
        with PeerSession(odd.peer) as session:
            session.compare_and_pull(ACCOUNTS)
            session.deliver([ACCOUNTS])
        assert TOKEN not in caplog.text
        stream = Stream.objects.get()
        assert stream.failures == 1
        assert str(status) in stream.last_error
        assert TOKEN not in stream.last_error
        assert {authorization for _, _, authorization in odd.asked} == {f"Token {TOKEN}"}


class TestWhatNobodyThoughtOf:
    """Our own error, with one of several peers: it is told with its trace, and the others are not kept by it."""

    @pytest.fixture
    def failing(self, monkeypatch):
        def read_digest(client, kind):
            raise ZeroDivisionError("nobody thought of it")

        monkeypatch.setattr(PeerClient, "read_digest", read_digest)

    def test_a_catch_up_goes_on(self, odd, failing, caplog):
        kinds = [passed.error for passed in catch_up([odd.peer], registry, directions=["pull"], make_progress=watch)]
        assert kinds == ["ZeroDivisionError: nobody thought of it"] * 3
        assert "Traceback" in caplog.text

    def test_a_comparison_is_noted(self, odd, failing, caplog):
        with PeerSession(odd.peer) as session:
            for resource in registry:
                session.compare_and_pull(resource)
        assert {stream.last_error for stream in Stream.objects.all()} == {"nobody thought of it"}
        assert "Traceback" in caplog.text


class TestTargets:
    @pytest.fixture
    def delivered(self, odd):
        def deliver(body):
            Account.objects.create(name="One")
            odd.digest = lambda server: (200, {}, digest_entry((APP1, 1), origin=server.endpoint))
            odd.target = lambda server: (200, {}, body)
            with PeerSession(odd.peer) as session:
                return session.deliver([ACCOUNTS]) is None

        return deliver

    @pytest.mark.parametrize("body", ["", "<html/>", "{}", f"<{'x' * 2_000_000}"])
    def test_200_is_not_enough(self, delivered, body):
        assert not delivered(body)
        assert Stream.objects.get().failures == 1

    def test_a_digest_that_did_not_move_on(self, delivered, odd):
        feed = feed_xml(digest_xml((APP1, 1), origin=odd.endpoint))
        assert not delivered(feed)
        assert "did not move on" in Stream.objects.get().last_error

    def test_results_without_a_digest_will_do(self, delivered):
        assert delivered('<feed xmlns="http://www.w3.org/2005/Atom"/>')
