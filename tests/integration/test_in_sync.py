"""Who is told "in sync" has the same data: nothing is missing, deferred, held back or refused, here or there."""

import json

import pytest
from django.core.management import CommandError, call_command

from sdata_sync.delivery import client
from sdata_sync.delivery.client import PeerClient
from sdata_sync.delivery.monitoring.status import collect_status
from sdata_sync.models import DeferredEntry, Peer, Stream
from testproject.crm.models import Account

from ..many_nodes import two_nodes
from ..shapes.models import Zone
from ..talk import push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"]),
    pytest.mark.xdist_group("in sync"),
]


@pytest.fixture
def nodes(monkeypatch):
    with two_nodes(monkeypatch, Zone) as nodes:
        yield nodes


def run(node, capsys, *arguments):
    """Run a command at ``node``; return its exit status and its output."""
    status = 0
    with node.at_work():
        try:
            call_command(*arguments)
        except SystemExit as ended:
            status = int(ended.code or 0)
    return status, capsys.readouterr().out


def refused_account(node):
    """Create an account whose e-mail address the other node refuses, because the accounts are validated."""
    with node.at_work():
        account = Account.objects.create(name="Natural Goods")
        Account.objects.create(name="Other")
        Account.objects.filter(pk=account.pk).update(email="nobody")
        return account.pk


class TestAnEntryThatWaitsAtThePeer:
    def test_catch_up_names_it_and_exits_with_1(self, a, b, capsys):
        refused_account(a)
        status, output = run(a, capsys, "sync_catchup", "--kind", "accounts", "--json")
        assert status == 1
        pull, pushed = json.loads(output)
        assert (pull["error"], pull["waiting"], pushed["error"]) == ("", "", "")
        assert pushed["waiting"] == "1 entry waits at node1: accounts 'Natural Goods'"
        status, output = run(a, capsys, "sync_catchup", "--kind", "accounts")
        assert status == 1
        assert "in sync, but 1 entry waits at node1" in " ".join(output.split())

    def test_the_other_side_says_so_too(self, a, b, capsys):
        refused_account(a)
        push(a, b)
        status, output = run(b, capsys, "sync_catchup", "--kind", "accounts", "--json")
        assert status == 1
        assert json.loads(output)[0]["waiting"].startswith("1 entry waits here: accounts ")

    def test_status_is_not_level_after_an_immediate_delivery(self, a, b):
        key = refused_account(a)
        push(a, b)
        with a.at_work():
            status = collect_status(a.base_url)
            [stream] = [stream for kind in status.kinds if kind.kind == "accounts" for stream in kind.streams]
            assert not status.is_level
            assert (stream.ticks_behind, stream.waiting) == (0, 1)
            assert stream.reason.startswith("1 entry waits at node1: accounts 'Natural Goods' (as last told at ")
            Account.objects.filter(pk=key).first().delete()
        push(a, b)
        with a.at_work():
            assert collect_status(a.base_url).is_level

    def test_it_is_known_when_the_waiting_has_ended(self, a, b, capsys):
        refused_account(a)
        push(a, b)
        with b.at_work():
            DeferredEntry.objects.update(is_discarded=True)
        status, output = run(a, capsys, "sync_catchup", "--kind", "accounts", "--json")
        assert (status, [item["waiting"] for item in json.loads(output)]) == (0, ["", ""])
        with a.at_work():
            assert Stream.objects.get(kind="accounts").waiting == 0

    def test_the_digest_tells_the_number(self, a, b):
        refused_account(a)
        push(a, b)
        with a.at_work(), PeerClient.for_peer(Peer.objects.get()) as client:
            assert client.read_digest("accounts").waiting == 1
            assert client.read_digest("contacts").waiting == 0


class TestVerify:
    def test_equal(self, a, b, capsys):
        with a.at_work():
            Zone.objects.create(code="north")
        push(a, b)
        status, output = run(a, capsys, "sync_verify", "--kind", "zones")
        assert (status, output.strip()) == (0, "node1, zones: equal digests; 1 compared; equal")

    @pytest.mark.parametrize("asked", ["a", "b"])
    def test_a_column_that_was_changed_past_everything_is_named(self, a, b, capsys, asked):
        with a.at_work():
            Zone.objects.create(code="north", label="North")
        push(a, b)
        with b.at_work():
            Zone.objects.update(label="changed")
        status, output = run(a if asked == "a" else b, capsys, "sync_verify", "--kind", "zones", "--json")
        assert status == 1
        [found] = json.loads(output)
        assert not found["digests_agree"] or found["columns"] == {"label": 1}

    def test_a_deferred_entry_is_a_difference(self, a, b, capsys):
        refused_account(a)
        push(a, b)
        status, output = run(b, capsys, "sync_verify", "--kind", "accounts", "--json")
        [found] = json.loads(output)
        assert (status, found["digests_agree"], found["deferred_here"]) == (1, True, 1)
        status, output = run(a, capsys, "sync_verify", "--kind", "accounts", "--json")
        [found] = json.loads(output)
        assert (status, found["digests_agree"], found["deferred_there"]) == (1, True, 1)

    @pytest.mark.parametrize("command", ["sync_verify", "sync_catchup"])
    @pytest.mark.parametrize(
        ("options", "what"), [(["--kind", "nothings"], "kind"), (["--peer", "node1", "--peer", "x"], "enabled peer")]
    )
    def test_what_is_not_there_is_refused(self, a, b, capsys, command, options, what):
        with pytest.raises(CommandError, match=f"There is no {what} '.*' here; there are: "):
            run(a, capsys, command, *options)

    def test_kinds_are_found_in_any_case(self, a, b, capsys):
        assert run(a, capsys, "sync_verify", "--kind", "ZONES")[0] == 0
        assert run(a, capsys, "sync_catchup", "--kind", "ZONES")[0] == 0


class TestAddingAPeer:
    def add(self, node, capsys, url, *options):
        with node.at_work():
            Peer.objects.all().delete()
        arguments = ("sync_peer", "add", url, "--name", "Branch", "--credentials", "peer", "--json", *options)
        status, output = run(node, capsys, *arguments)
        return status, json.loads(output)

    def test_it_says_what_is_shared(self, a, b, capsys):
        status, said = self.add(a, capsys, b.base_url)
        assert (status, said["problems"], said["not_shared"]) == (0, [], [])
        assert {"accounts", "zones"} <= set(said["shared"])

    def test_a_peer_that_is_not_there(self, a, b, capsys, monkeypatch):
        monkeypatch.setattr(client, "default_transport", None)
        status, said = self.add(a, capsys, "http://127.0.0.1:9/sdata/x/y/-")
        assert status == 1
        [problem] = said["problems"]
        assert "Check the URL, the network" in problem
        assert self.add(a, capsys, "http://127.0.0.1:9/sdata/x/y/-", "--offline")[0] == 0

    def test_a_url_that_is_no_dataset(self, a, b, capsys):
        status, said = self.add(a, capsys, b.base_url + "x")
        assert status == 1
        assert "is the URL of its dataset" in said["problems"][0]

    def test_another_name(self, a, b, capsys):
        status, said = self.add(a, capsys, b.base_url.replace("node1", "node1:80"))
        assert status == 1
        assert said["problems"][0].endswith(f"Remove the peer and add it as {b.base_url}.")
