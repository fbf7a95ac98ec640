"""Conflicts are seen: recorded with both versions, decided by the application, overruled by people, announced."""

from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.urls import reverse

import sdata_sync
from sdata_sync import signals
from sdata_sync.models import ConflictRecord, DeferredEntry, Endpoint, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..wire import APP1, APP2, LATER, UUIDS, digest_xml, entry_xml, feed_xml, post, results

pytestmark = pytest.mark.django_db

PROPERTIES = "<name>n</name><city>{city}</city><notes>{notes}</notes>"


def send(client, tick, city="", notes="", *, stamp="2009-01-01T00:00:00Z", deleted=False, known=1, priority=5):
    content = PROPERTIES.format(city=city, notes=notes)
    entry = entry_xml(UUIDS[0], APP1, tick, content, stamp=stamp, deleted=deleted, user="them")
    digest = digest_xml((APP1, tick + 1, priority), (APP2, known), origin=APP1)
    return results(post(client, feed_xml(digest, entry, mode="catchUp", next_url="more")))[0]


@pytest.fixture
def edited(peer_client):
    """An account that came from APP1 and was edited here."""
    send(peer_client, 1, city="Rome")
    account = Account.objects.get()
    account.city = "Here"
    account.save()
    return account


@pytest.fixture
def resolving():
    """Registers Account with a ``resolve`` of the test's own."""
    usual = registry.of_kind("accounts")

    def register(resolve):
        sdata_sync.unregister(Account)
        made = type("Resolving", (type(usual.declared),), {"resolve": lambda self, conflict: resolve(conflict)})
        sdata_sync.register(Account)(made)

    yield register
    sdata_sync.unregister(Account)
    sdata_sync.register(Account)(type(usual.declared))


EARLIER = "2001-01-01T00:00:00Z"


class TestRecords:
    def test_the_received_version_wins(self, peer_client, edited):
        assert send(peer_client, 2, city="There", stamp=LATER).status == 200
        record = ConflictRecord.objects.get()
        assert (record.remote_won, record.rule, record.resource.uuid) == (
            True, "later stamp", TrackedResource.objects.get().uuid,
        )  # fmt: skip
        assert "<city>Here</city>" in record.local_payload
        assert "<city>There</city>" in record.remote_payload
        assert (record.local_endpoint, record.remote_endpoint, record.remote_user) == (APP2, APP1, "them")

    def test_the_local_version_wins(self, peer_client, edited):
        assert send(peer_client, 2, city="There", stamp=EARLIER).status == 409
        record = ConflictRecord.objects.get()
        assert not record.remote_won
        assert "<city>There</city>" in record.losing_payload

    def test_equal_content_is_none(self, peer_client, edited):
        send(peer_client, 2, city="Here", stamp=LATER)
        assert not ConflictRecord.objects.exists()

    def test_a_deletion_against_an_edit(self, peer_client, edited):
        send(peer_client, 2, stamp=LATER, deleted=True)
        record = ConflictRecord.objects.get()
        assert (record.remote_payload, Account.objects.count()) == ("", 0)


class TestClones:
    def test_one_tick_for_two_changes_is_reported_and_not_merged(self, peer_client):
        send(peer_client, 1, city="Rome")
        assert not Endpoint.objects.filter(clone_seen_at__isnull=False).exists()
        assert send(peer_client, 1, city="Rome").message == "Unchanged"
        assert not Endpoint.objects.filter(clone_seen_at__isnull=False).exists()
        assert send(peer_client, 1, city="Milan", stamp="2010-01-01T00:00:00Z").message == "Unchanged"
        assert Account.objects.get().city == "Rome"
        clone = Endpoint.objects.get(clone_seen_at__isnull=False)
        assert clone.url == APP1
        assert "Its tick 1 was received as a change" in clone.clone_note
        out = StringIO()
        with pytest.raises(SystemExit):
            call_command("sync_status", stdout=out)
            raise SystemExit  # level or not, it is said
        assert f"CLONE: {APP1}" in out.getvalue()


class TestAdmin:
    @pytest.fixture
    def admin(self, client, db):
        client.force_login(User.objects.create_superuser("root", password="x"))
        return client

    def act(self, client, model, action, obj):
        url = reverse(f"admin:sdata_sync_{model}_changelist")
        return client.post(url, {"action": action, "_selected_action": [obj.pk]}, follow=True).content.decode()

    def test_side_by_side(self, peer_client, edited, admin):
        send(peer_client, 2, city="&lt;There&gt;", stamp=LATER)
        record = ConflictRecord.objects.get()
        page = admin.get(reverse("admin:sdata_sync_conflictrecord_change", args=[record.pk])).content.decode()
        assert "<td><mark>Here</mark></td>" in page
        assert "<td><mark>&lt;There&gt;</mark></td>" in page
        assert "<th>name</th><td>n</td><td>n</td>" in page

    @pytest.mark.parametrize(("stamp", "stands", "other"), [(LATER, "There", "Here"), (EARLIER, "Here", "There")])
    def test_use_the_other_version(self, peer_client, edited, admin, stamp, stands, other):
        send(peer_client, 2, city="There", stamp=stamp)
        assert Account.objects.get().city == stands
        before = assign_ticks(registry.of_kind("accounts")).value.tick(APP2)
        said = self.act(admin, "conflictrecord", "use_the_other_version", ConflictRecord.objects.get())
        assert "the other version is used" in said
        assert Account.objects.get().city == other
        assert assign_ticks(registry.of_kind("accounts")).value.tick(APP2) == before + 1
        assert ConflictRecord.objects.get().overruled_at is not None

    def test_back_to_life(self, peer_client, edited, admin):
        send(peer_client, 2, stamp=LATER, deleted=True)
        self.act(admin, "conflictrecord", "use_the_other_version", ConflictRecord.objects.get())
        assert Account.objects.get().city == "Here"
        assign_ticks(registry.of_kind("accounts"))
        tracked = TrackedResource.objects.get()
        assert str(tracked.uuid).upper() == UUIDS[0].upper()
        assert (tracked.is_deleted, tracked.mark, tracked.local_key) == (False, None, str(Account.objects.get().pk))

    def test_a_deletion_after_all(self, peer_client, edited, admin):
        send(peer_client, 2, stamp=EARLIER, deleted=True)
        self.act(admin, "conflictrecord", "use_the_other_version", ConflictRecord.objects.get())
        assert not Account.objects.exists()

    def test_not_without_the_permission(self, peer_client, edited, client):
        send(peer_client, 2, city="There", stamp=LATER)
        user = User.objects.create_user("clerk", password="x", is_staff=True)
        from django.contrib.auth.models import Permission

        user.user_permissions.add(Permission.objects.get(codename="view_conflictrecord"))
        client.force_login(user)
        self.act(client, "conflictrecord", "use_the_other_version", ConflictRecord.objects.get())
        assert Account.objects.get().city == "There"

    def test_deferred_entries(self, peer_client, admin):
        entry = entry_xml(UUIDS[1], APP1, 1, "<name>x</name><country>NOPE</country>")
        post(peer_client, feed_xml(digest_xml((APP1, 2)), entry, mode="catchUp", next_url="more"))
        deferred = DeferredEntry.objects.get()
        page = admin.get(reverse("admin:sdata_sync_deferredentry_change", args=[deferred.pk])).content.decode()
        assert "NOPE" in page
        assert "0 of 1 entries were applied" in self.act(admin, "deferredentry", "retry", deferred)
        assert "1 entries are not retried" in self.act(admin, "deferredentry", "discard", deferred)
        DeferredEntry.objects.update(payload=deferred.payload.replace("NOPE", "IT"))
        send(peer_client, 2, city="x")
        assert Account.objects.count() == 1  # it was left alone
        assert "1 of 1 entries were applied" in self.act(admin, "deferredentry", "retry", deferred)
        assert not DeferredEntry.objects.exists()
        assert Account.objects.get(name="x").country == "IT"


class TestResolve:
    def test_sees_both_and_may_leave_it(self, peer_client, edited, resolving):
        seen = []
        resolving(seen.append)
        send(peer_client, 2, city="There", stamp=LATER)
        [conflict] = seen
        assert (conflict.local.values["city"], conflict.remote.values["city"]) == ("Here", "There")
        assert (conflict.remote_wins, conflict.rule.value, conflict.remote.state.user) == (True, "later stamp", "them")
        assert Account.objects.get().city == "There"

    @pytest.mark.parametrize(("decision", "stamp", "city"), [("local", LATER, "Here"), ("remote", EARLIER, "There")])
    def test_against_the_rules_is_a_change_of_its_own(self, peer_client, edited, resolving, decision, stamp, city):
        resolving(lambda conflict: decision)
        before = assign_ticks(registry.of_kind("accounts")).value.tick(APP2)
        send(peer_client, 2, city="There", stamp=stamp)
        assert Account.objects.get().city == city
        tracked = TrackedResource.objects.get()
        assert (tracked.endpoint.url, tracked.tick) == (APP2, before)
        assert ConflictRecord.objects.get().rule == "the application"

    def test_merged(self, peer_client, edited, resolving):
        resolving(lambda conflict: {"notes": conflict.remote.values["notes"]})
        before = assign_ticks(registry.of_kind("accounts")).value.tick(APP2)
        send(peer_client, 2, city="There", notes="theirs", stamp=LATER)
        account = Account.objects.get()
        assert (account.city, account.notes) == ("Here", "theirs")
        tracked = TrackedResource.objects.get()
        assert (tracked.endpoint.url, tracked.tick, tracked.mark) == (APP2, before, None)
        # The row is what was numbered.
        assert assign_ticks(registry.of_kind("accounts")).value.tick(APP2) == before + 1

    def test_a_deletion_that_is_merged_lives_on(self, peer_client, edited, resolving):
        resolving(lambda conflict: {"notes": "kept"} if conflict.remote.values is None else None)
        send(peer_client, 2, stamp=LATER, deleted=True)
        account = Account.objects.get()
        assert (account.city, account.notes) == ("Here", "kept")
        assert not TrackedResource.objects.get().is_deleted

    def test_is_not_asked_about_an_alias(self, peer_client, edited, resolving):
        """Another uuid for the row is no content: the edit of this node stays, under the new uuid."""
        resolving(lambda conflict: {"notes": "merged"})
        dss = f'xmlns:dss="urn:django-sdata-sync" dss:replacedBy="{UUIDS[3]}"'
        entry = entry_xml(UUIDS[0], APP1, 2, stamp=LATER, deleted=True).replace(
            'sdata:isDeleted="true"', f'sdata:isDeleted="true" {dss}'
        )
        assert dss in entry
        response = post(peer_client, feed_xml(digest_xml((APP1, 3), origin=APP1), entry))
        assert response.status_code == 200
        account = Account.objects.get()
        assert (account.city, account.notes) == ("Here", "")
        assert str(TrackedResource.objects.get(local_key=str(account.pk)).uuid).upper() == UUIDS[3].upper()

    @pytest.mark.parametrize("nonsense", ["both", {"colour": 1}])
    def test_nonsense_leaves_it_to_the_rules(self, peer_client, edited, resolving, nonsense):
        resolving(lambda conflict: nonsense)
        assert send(peer_client, 2, city="There", stamp=LATER).status == 200
        assert Account.objects.get().city == "There"

    def test_so_does_an_error(self, peer_client, edited, resolving):
        def fail(conflict):
            raise KeyError("x")

        resolving(fail)
        assert send(peer_client, 2, city="There", stamp=LATER).status == 200


class TestSignals:
    def test_each_of_them_after_the_commit(self, peer_client, edited, django_capture_on_commit_callbacks):
        told = []

        def listen(signal, **what):
            told.append(what)

        every = (signals.conflict_decided, signals.entry_deferred, signals.resource_applied)
        for signal in every:
            signal.connect(listen, sender=Account)
        try:
            with django_capture_on_commit_callbacks(execute=True):
                send(peer_client, 2, city="There", stamp=LATER)
                assert told == []
            entry = entry_xml(UUIDS[1], APP1, 9, "<name>x</name><country>NOPE</country>")
            with django_capture_on_commit_callbacks(execute=True):
                post(peer_client, feed_xml(digest_xml((APP1, 10)), entry, mode="catchUp", next_url="more"))
        finally:
            for signal in every:
                signal.disconnect(listen, sender=Account)
        kinds = [next(key for key in ("record", "entry", "state") if key in what) for what in told]
        assert kinds == ["record", "state", "entry"]
        assert told[0]["record"].remote_won
        assert (told[1]["local_key"], told[1]["state"].tick, told[1]["state"].endpoint) == (str(edited.pk), 2, APP1)
        assert "country" in told[2]["entry"].reason
