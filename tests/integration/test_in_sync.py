"""Who is told "in sync" has the same data: nothing is missing, deferred, held back or refused, here or there."""

import json

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.test import RequestFactory

import sdata_sync
from sdata_sync.api.views import schema as schema_of_peer
from sdata_sync.checks import check_peers
from sdata_sync.delivery import catchup, client
from sdata_sync.delivery.client import PeerClient
from sdata_sync.delivery.monitoring.status import collect_status
from sdata_sync.delivery.session import PeerSession
from sdata_sync.exceptions import PeerError
from sdata_sync.models import DeferredEntry, Peer, Stream
from sdata_sync.registry import registry
from testproject.crm.models import Account

from ..many_nodes import two_nodes
from ..shapes.models import Zone
from ..talk import push, run

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"]),
    pytest.mark.xdist_group("in sync"),
]


@pytest.fixture
def nodes(monkeypatch):
    with two_nodes(monkeypatch, Zone) as nodes:
        yield nodes


@pytest.fixture
def asked(nodes, monkeypatch):
    """Return a list that the method and path of each request are added to."""
    requests, wire = [], client.default_transport
    usual = wire.handle_request

    def handle_request(request):
        requests.append((request.method, request.url.path))
        return usual(request)

    monkeypatch.setattr(wire, "handle_request", handle_request)
    return requests


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


class TestWhatIsHeldBackThere:
    """A change that a node cannot send is missing at its peer, although the digests are equal."""

    @pytest.mark.parametrize("is_new", [True, False])
    def test_no_node_calls_itself_in_sync(self, a, b, capsys, is_new):
        with b.at_work():
            Account.objects.create(name="Natural Goods")
        push(b, a)
        with b.at_work():
            account = Account() if is_new else Account.objects.get()
            account.name = "Bad\x01 Goods"
            account.save()
        for node in (b, a, a):
            status, output = run(node, capsys, "sync_catchup", "--kind", "accounts")
            assert status == 1, output
        assert "wait" in output
        for node in (a, b):
            status, output = run(node, capsys, "sync_verify", "--kind", "accounts")
            assert status == 1, output
            assert "; equal" not in output
            status, output = run(node, capsys, "sync_status")
            assert "accounts" in output
        with a.at_work():
            assert not collect_status("a").is_level

    def test_after_it_was_mended_they_are(self, a, b, capsys):
        with b.at_work():
            account = Account.objects.create(name="Bad\x01 Goods")
        run(b, capsys, "sync_catchup")
        assert run(a, capsys, "sync_catchup")[0] == 1
        with b.at_work():
            account.name = "Good Goods"
            account.save()
        assert run(b, capsys, "sync_catchup")[0] == 0
        for node in (a, b):
            assert run(node, capsys, "sync_catchup")[0] == 0
            assert run(node, capsys, "sync_verify")[0] == 0


class TestAReferenceThatIsPending:
    @pytest.fixture
    def pending(self, a, b):
        """A zone at node a whose parent is held back at node b."""
        with b.at_work():
            parent = Zone.objects.create(code="above", label="Bad\x01 label")
            Zone.objects.create(code="below", parent=parent)
        push(b, a)
        with a.at_work():
            assert Zone.objects.get().parent_id is None

    def test_is_no_equal_row(self, a, b, pending, capsys):
        for node in (b, a, b):
            status, output = run(node, capsys, "sync_catchup", "--kind", "zones")
        assert status == 1
        status, output = run(a, capsys, "sync_catchup", "--kind", "zones")
        assert status == 1
        assert "below" in output
        status, output = run(a, capsys, "sync_verify", "--kind", "zones")
        assert status == 1
        with a.at_work():
            [zones] = [kind for kind in collect_status("a").kinds if kind.kind == "zones"]
            assert (zones.unfilled, zones.is_complete) == (1, False)
            assert "without a reference" in zones.incomplete


def test_the_number_of_waiting_entries_and_their_names_agree(a, b, capsys):
    """One name that is known of three entries is followed by a sign that there are more."""
    from sdata_sync.delivery.waiting import Waiting

    assert str(Waiting(count=3, where="at B", names=("x",))) == "3 entries wait at B: x …"
    assert str(Waiting(count=1, where="at B", names=("x",))) == "1 entry waits at B: x"


class TestAKindThatThePeerDoesNotHave:
    """It is not shared, which is no failure; a peer that has no kind at all is one."""

    @pytest.fixture
    def absent(self, nodes):
        client.default_transport.absent.add(("node1", "zones"))
        return client.default_transport.absent

    def test_everything_says_not_shared(self, a, b, absent, capsys):
        with a.at_work():
            Zone.objects.create(code="north")
            Account.objects.create(name="Natural Goods")
        status, output = run(a, capsys, "sync_catchup", "--json")
        assert status == 0
        assert {item["shared"] for item in json.loads(output) if item["kind"] == "zones"} == {False}
        assert all(item["shared"] for item in json.loads(output) if item["kind"] != "zones")
        assert "not shared with node1" in " ".join(run(a, capsys, "sync_catchup", "--kind", "zones")[1].split())
        status, output = run(a, capsys, "sync_status")
        assert status == 0
        assert "node1: not shared" in output
        status, output = run(a, capsys, "sync_verify")
        assert status == 0
        assert "node1, zones: not shared with node1" in output
        assert run(a, capsys, "sync_deliver", "--once") == (0, "node1: in sync\n")

    def test_immediate_deliveries_do_not_ask_again_and_again(self, a, b, absent, asked):
        with a.at_work(), PeerSession(Peer.objects.get()) as session:
            for number in range(3):
                Zone.objects.create(code=f"z{number}")
                assert session.deliver(registry) is None
            assert len([path for _, path in asked if "/zones/" in path]) == 1
            stream = Stream.objects.get(kind="zones")
            assert (stream.failures, stream.last_error) == (0, "")

    @pytest.mark.parametrize("act", ["catch up", "compare"])
    def test_when_the_peer_gets_it(self, a, b, absent, capsys, act):
        a.settings["HEARTBEAT_SECONDS"] = 0.001
        with a.at_work():
            Zone.objects.create(code="north")
        assert run(a, capsys, "sync_catchup")[0] == 0
        absent.clear()
        if act == "catch up":
            assert run(a, capsys, "sync_catchup")[0] == 0
        else:
            with a.at_work(), PeerSession(Peer.objects.get()) as session:
                for kind in registry:
                    session.compare_and_pull(kind)
                assert session.deliver(registry) is None
        with b.at_work():
            assert Zone.objects.filter(code="north").exists()

    def test_one_that_it_had_before_is_a_failure(self, a, b, capsys):
        with a.at_work():
            Zone.objects.create(code="north")
        assert run(a, capsys, "sync_catchup")[0] == 0
        client.default_transport.absent.add(("node1", "zones"))
        with a.at_work():
            Zone.objects.create(code="south")
        status, output = run(a, capsys, "sync_catchup", "--json")
        assert status == 1
        assert [item["kind"] for item in json.loads(output) if item["error"]] == ["zones", "zones"]
        assert run(a, capsys, "sync_status")[0] == 1
        assert run(a, capsys, "sync_verify")[0] == 1

    def test_a_peer_without_any_kind(self, a, b, capsys):
        with a.at_work():
            client.default_transport.absent.update(("node1", kind.name) for kind in registry)
            Zone.objects.create(code="north")
        for command in (["sync_catchup"], ["sync_deliver", "--once"], ["sync_status"], ["sync_verify"]):
            status, _ = run(a, capsys, *command)
            assert status == 1, command


class TestAnotherBaseUrl:
    """The URL is the identity of a node. Another one does not make a second node without a word."""

    @pytest.fixture
    def moved(self, a, b, capsys):
        with a.at_work():
            Zone.objects.create(code="north")
        push(a, b)
        assert run(a, capsys, "sync_status")[0] == 0
        a.settings["BASE_URL"] = a.base_url.replace("myContract", "otherContract")
        with a.at_work():
            Zone.objects.create(code="south")

    def test_everything_says_so(self, a, b, moved, capsys, caplog):
        with a.at_work():
            with PeerSession(Peer.objects.get()) as session:
                session.deliver(registry)
            said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
            assert len(said) == 1
            assert "are now http://node0/sdata/myApp2/otherContract/-/zones" in said[0]
            errors = [error.id for error in check_peers(None, databases=["node0"])]
            assert errors == ["sdata_sync.E030"]
        status, output = run(a, capsys, "sync_status")
        assert status == 1
        assert "BASE_URL was changed" in output
        assert "sync_rejoin --moved" in output
        assert run(a, capsys, "sync_status", "--check")[0] == 2
        assert run(a, capsys, "sync_deliver", "--once")[0] == 1

    def test_one_that_has_moved_for_good(self, a, b, moved, capsys):
        status, output = run(a, capsys, "sync_rejoin", "--moved", "--json")
        assert (status, json.loads(output)["zones"]) == (0, f"{a.base_url}/zones")
        assert run(a, capsys, "sync_catchup")[0] == 0
        assert run(a, capsys, "sync_status")[0] == 0
        with a.at_work():
            assert check_peers(None, databases=["node0"]) == []
        with b.at_work():
            assert Zone.objects.count() == 2

    def test_one_that_is_set_back(self, a, b, moved, capsys):
        a.settings["BASE_URL"] = a.base_url
        assert run(a, capsys, "sync_catchup")[0] == 0
        assert run(a, capsys, "sync_status")[0] == 0


class TestAPeerThatCallsItselfOtherwise:
    def test_it_is_said(self, a, b, capsys, monkeypatch, caplog):
        with a.at_work():
            Peer.objects.update(url=b.base_url.replace("node1", "node1:80"))
        for _ in range(2):
            run(a, capsys, "sync_catchup")
        told = [record.getMessage() for record in caplog.records if "calls itself so" in record.getMessage()]
        assert len([text for text in told if "/zones: " in text]) == 1
        output = run(a, capsys, "sync_status")[1]
        assert f"CLAIM: {b.base_url}/zones: node1 calls itself so, and is http://node1:80" in output
        assert f"add it as {b.base_url}." in output


class TestARenamedModel:
    def test_the_check_names_its_former_kind(self, a, b):
        with a.at_work():
            Zone.objects.create(code="north")
        push(a, b)
        with a.at_work():
            sdata_sync.unregister(Zone)
            try:
                [warning] = check_peers(None, databases=["node0"])
            finally:
                sdata_sync.register(Zone)(sdata_sync.SyncResource)
        assert warning.id == "sdata_sync.W010"
        assert "1 rows of the kind 'zones'" in warning.msg
        assert "path = 'zones'" in warning.hint


class TestAPeerThatIsDisabled:
    def test_nothing_is_exchanged_by_any_action(self, a, b, asked, admin_actions):
        with a.at_work():
            Peer.objects.update(enabled=False)
            Zone.objects.create(code="north")
            for action in ("deliver_now", "catch_up_now"):
                assert admin_actions(action) == ["node1 is disabled: nothing was exchanged with it."]
            with PeerSession(Peer.objects.get()) as session, pytest.raises(PeerError, match="node1 is disabled"):
                session.client()
            call_command("sync_deliver", "--once")
            with pytest.raises(CommandError, match="no enabled peer"):
                call_command("sync_catchup")
        assert asked == []

    def test_what_the_actions_say_of_one_that_is_enabled(self, a, b, admin_actions):
        refused_account(a)
        with a.at_work():
            [said] = admin_actions("deliver_now")
            assert said.startswith("node1 is not in sync: accounts: 1 entry waits at node1: accounts 'Natural Goods'")
            assert any("in sync, but 1 entry waits at node1" in text for text in admin_actions("catch_up_now"))

    @pytest.fixture
    def admin_actions(self):
        """Return a function that runs an action of the peers' admin on all peers, and returns what it tells."""

        def act(name):
            page = admin.site.get_model_admin(Peer)
            told = []
            page.message_user = lambda request, text, level: told.append(text)
            getattr(page, name)(RequestFactory().post("/"), Peer.objects.all())
            del page.message_user
            return told

        return act


class TestAddingAPeer:
    def add(self, node, capsys, url, *options):
        with node.at_work():
            Peer.objects.all().delete()
        arguments = ("sync_peer", "add", url, "--name", "Branch", "--credentials", "peer", "--json", *options)
        status, output = run(node, capsys, *arguments)
        return status, json.loads(output)

    def test_it_says_what_is_shared(self, a, b, capsys):
        status, said = self.add(a, capsys, b.base_url)
        assert (status, said["problems"], said["not_shared"], said["differences"]) == (0, [], [], [])
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

    def test_a_clock_that_is_wrong(self, a, b, capsys):
        b.skew_millis = -3 * 3600 * 1000
        status, said = self.add(a, capsys, b.base_url)
        assert status == 1
        assert "The clock of Branch is 10800 s behind the clock of this node" in said["problems"][0]

    @pytest.mark.parametrize("permission", ["read_feeds", "push_feeds"])
    def test_a_permission_that_is_missing_is_named(self, a, b, capsys, permission):
        with b.at_work():
            user = User.objects.get(username=a.alias)
            user.is_superuser = False
            user.save()
            others = {"read_feeds", "push_feeds"} - {permission}
            user.user_permissions.set(Permission.objects.filter(codename__in=others))
        status, said = self.add(a, capsys, b.base_url)
        assert status == 1
        [problem] = said["problems"]
        assert f"This login needs the permission sdata_sync.{permission}." in problem

    def test_properties_that_only_one_side_has(self, a, b, capsys, monkeypatch):
        usual = schema_of_peer.render_schema

        def render_schema(namespace):
            text = usual(namespace).decode()
            assert 'name="label"' in text
            return text.replace('name="label"', 'name="colour"').replace('name="parent"', 'name="Parent_"').encode()

        monkeypatch.setattr(schema_of_peer, "render_schema", render_schema)
        status, said = self.add(a, capsys, b.base_url)
        assert (status, said["problems"]) == (0, [])
        assert said["differences"] == [
            "zones: what is parent here is Parent_ at Branch, so its values are not exchanged. Set `field_names` of the "
            "resource to the name of the peer.",
            "zones: Branch does not have label; it does not show these values.",
            "zones: only Branch has colour; this node keeps the values unseen.",
        ]

    def test_they_are_logged_once(self, a, b, capsys, monkeypatch, caplog):
        usual = schema_of_peer.render_schema
        monkeypatch.setattr(
            schema_of_peer, "render_schema", lambda space: usual(space).replace(b'name="label"', b'name="colour"')
        )
        monkeypatch.setattr(catchup, "told_differences", set())
        for _ in range(2):
            assert run(a, capsys, "sync_catchup")[0] == 0
        told = [record.getMessage() for record in caplog.records if "only node1 has colour" in record.getMessage()]
        assert len(told) == 1

    def test_migrations_that_are_not_applied(self, a, b, capsys):
        with connections["node0"].cursor() as cursor:
            cursor.execute("DELETE FROM django_migrations WHERE app = 'crm' AND name = %s", [last_migration("crm")])
        try:
            status, said = self.add(a, capsys, b.base_url)
        finally:
            MigrationRecorder(connections["node0"]).record_applied("crm", last_migration("crm"))
        assert status == 1
        assert f"lacks the migrations crm.{last_migration('crm')}. Run: manage.py migrate" in said["problems"][0]


def last_migration(app):
    [(_, name)] = MigrationLoader(None).graph.leaf_nodes(app)
    return name
