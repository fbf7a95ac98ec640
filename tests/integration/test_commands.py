"""The commands: what they print, and their exit status."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from sdata_sync.models import Endpoint, Peer, Stream
from testproject.crm.models import Account

pytestmark = pytest.mark.django_db
URL = "http://127.0.0.1:9/sdata/branch/myContract/-"


def run(*arguments) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command(*arguments, stdout=out, no_color=True)
    except SystemExit as ended:
        return ended.code, out.getvalue()
    return 0, out.getvalue()


class TestPeer:
    def test_add_list_remove(self, settings):
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "CREDENTIALS": {"b": {"token": "t0ken"}}}
        code, said = run(
            "sync_peer", "add", URL + "/", "--name", "Branch", "--credentials", "b", "--relay", "--offline"
        )
        assert (code, said) == (0, f"Added Branch, {URL}.\n")
        peer = Peer.objects.get()
        assert (peer.immediate, peer.relay, peer.enabled) == (True, True, True)
        assert run("sync_peer", "list")[1] == f"Branch  {URL}  immediate  relay\n"
        listed = json.loads(run("sync_peer", "list", "--json")[1])
        assert listed == [
            {
                "name": "Branch",
                "url": URL,
                "credentials": "b",
                "immediate": True,
                "relay": True,
                "enabled": True,
                "user": "",
            }
        ]
        assert run("sync_peer", "disable", "Branch")[1] == "Branch is disabled.\n"
        assert not Peer.objects.get().enabled
        assert run("sync_peer", "enable", "Branch")[1] == "Branch is enabled.\n"
        assert "t0ken" not in json.dumps(listed)
        assert run("sync_peer", "remove", "Branch")[1] == f"Removed Branch, {URL}.\n"
        assert run("sync_peer", "list")[1] == "There are no peers.\n"

    @pytest.mark.parametrize(
        ("url", "options", "message"),
        [
            ("http://www.example.com/sdata/MYAPP2/myContract/-", [], "a node cannot be its own peer"),
            ("ftp://x/y", [], "Expected a URL like"),
            ("nonsense", [], "Expected a URL like"),
            ("http://[x/y", [], "Expected a URL like"),
            ("http://me:secret@x/y", [], "Secrets do not belong"),
            ("http://x/y", ["--credentials", "c"], "has no entry 'c'"),
            (URL.upper().replace("HTTP", "http"), [], "There is a peer with this URL already"),
        ],
    )
    def test_a_peer_that_cannot_be(self, url, options, message):
        Peer.objects.create(name="Branch", url=URL)
        with pytest.raises(CommandError, match="The peer was not added") as caught:
            run("sync_peer", "add", url, "--name", "x", "--offline", *options)
        assert message in str(caught.value)

    def test_removing_one_that_is_not_there(self):
        with pytest.raises(CommandError, match="There is no peer called 'x'; there are: none"):
            run("sync_peer", "remove", "x")


class TestStatus:
    def test_without_peers(self):
        code, said = run("sync_status")
        assert code == 0
        assert "accounts: tick 1" in said
        assert "no peers" in said

    def test_what_waits_and_what_fails(self):
        Account.objects.create(name="a")
        peer = Peer.objects.create(name="Branch", url=URL)
        Peer.objects.create(name="New", url=URL + "2")
        Endpoint.objects.create(url="http://x", key="http://x", clock_ahead=90_000, clock_ahead_at="2024-01-01T00:00Z")
        Stream.objects.create(
            peer=peer, kind="accounts", failures=3, last_error="no answer", last_success=1, known_digest="{}"
        )
        code, said = run("sync_status")
        assert code == 1
        assert "accounts: tick 1, 1 without a tick yet" in said
        assert "Branch: 0 ticks behind, last success 1970-01-01" in said
        assert "failed 3 times in a row: no answer (tried again in 0 s)" in said
        assert "New: not contacted yet" in said
        assert "CLOCK: http://x stamped changes 90.0 s ahead" in said
        assert json.loads(run("sync_status", "--json")[1])["is_level"] is False


class TestDeliver:
    def test_once_without_peers(self):
        assert run("sync_deliver", "--once") == (0, "")

    def test_once_to_a_peer_that_is_away(self):
        Peer.objects.create(name="Branch", url=URL)
        Peer.objects.create(name="Retired", url=URL + "2", enabled=False)
        Peer.objects.create(name="Slow", url=URL + "3", immediate=False)
        code, said = run("sync_deliver", "--once")
        assert code == 1
        assert said.startswith("Branch: not in sync: ")
        assert len(said.splitlines()) == 1
        code, said = run("sync_deliver", "--once", "--json")
        assert code == 1
        assert json.loads(said)["level"] == {"Branch": False}
        assert {s.kind: s.failures for s in Stream.objects.all()} == dict.fromkeys(
            ["accounts", "contacts", "salesOrders"], 2
        )

    def test_a_poll_that_is_none(self):
        with pytest.raises(CommandError, match="above 0"):
            run("sync_deliver", "--poll", "0")
