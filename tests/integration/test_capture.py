"""What is captured, and what its number is."""

import logging

import pytest
from django.core import serializers
from django.db import IntegrityError, OperationalError, connection, transaction
from django.db.models import F
from django.db.models.signals import pre_save
from django.test import RequestFactory

import sdata_sync
from sdata_sync.middleware import SyncUserMiddleware
from sdata_sync.models import DeferredEntry, DigestEntry, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.log.suppression import applying
from sdata_sync.sync.select.changes import prepare_page
from sdata_sync.sync.stamp import stamper as stamping
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..shapes.models import BulkAccount, Coupon, FavouritePlace, Place, Restaurant

ACCOUNTS = registry.of_model(Account)


def number(resource=ACCOUNTS) -> int:
    """Number what is marked, and return the next tick."""
    return assign_ticks(resource).value.tick(resource.endpoint)


def log(kind="accounts") -> list[tuple]:
    """(local key, tick, deleted), by tick; the key stands for the row."""
    rows = TrackedResource.objects.filter(kind=kind, tick__isnull=False).order_by("tick")
    return [(row.local_key, row.tick, row.is_deleted) for row in rows]


def marked(kind="accounts") -> set:
    return set(TrackedResource.objects.filter(kind=kind, mark__isnull=False).values_list("local_key", flat=True))


@pytest.fixture
def bulk():
    with sdata_sync.registered(BulkAccount) as resource:
        yield resource


@pytest.mark.django_db
class TestInsideATransaction:
    """Each test of Django's is one."""

    def test_create_update_delete(self):
        account = Account.objects.create(name="a")
        assert marked() == {str(account.pk)}
        assert number() == 2
        assert marked() == set()
        account.name = "b"
        account.save()
        assert number() == 3
        account.delete()
        assert number() == 4
        assert log() == [(None, 3, True)]

    def test_several_changes_of_one_row_are_one_tick(self):
        account = Account.objects.create(name="a")
        account.name = "b"
        account.save()
        assert number() == 2

    def test_what_did_not_change_gets_no_tick(self):
        account = Account.objects.create(name="a", credit_limit="1.5")
        number()
        account = Account.objects.get()
        account.save()
        Account.objects.get().save(update_fields=["name"])
        assert number() == 2
        assert marked() == set()

    def test_created_and_deleted_before_anybody_looked(self):
        Account.objects.create(name="a").delete()
        assert number() == 1
        assert not TrackedResource.objects.exists()

    def test_a_rollback_leaves_no_hole(self):
        with pytest.raises(IntegrityError), transaction.atomic():
            Account.objects.create(name="a")
            raise IntegrityError
        Account.objects.create(name="b")
        assert number() == 2
        assert [tick for _, tick, _ in log()] == [1]

    def test_a_savepoint_that_is_rolled_back(self):
        account = Account.objects.create(name="a")
        number()
        account.name = None
        with pytest.raises(IntegrityError), transaction.atomic():
            account.save()
        account.name = "b"
        account.save()
        assert number() == 3

    def test_deleting_a_queryset(self):
        for name in "abc":
            Account.objects.create(name=name)
        number()
        Account.objects.filter(name__in="ab").delete()
        assert number() == 6
        assert [deleted for _, _, deleted in log()] == [False, True, True]

    def test_f_expressions(self, bulk):
        row = BulkAccount.objects.create(name="a", rank=1)
        number(bulk)
        row.rank = F("rank") + 1
        row.save()
        assert number(bulk) == 3
        stored = assign_ticks(bulk)
        [entry] = prepare_page(bulk, stored, stored.value.__class__(), limit=10).entries
        assert "<rank>2</rank>" in entry

    def test_raw_loading(self):
        data = serializers.serialize("json", [Account(pk=77, name="fixture")])
        for item in serializers.deserialize("json", data):
            item.save()
        assert marked() == {"77"}
        assert number() == 2

    def test_a_model_that_is_not_registered_costs_nothing(self, django_assert_num_queries):
        with django_assert_num_queries(1):
            Place.objects.create(name="x")

    def test_stamps_do_not_go_back(self):
        account = Account.objects.create(name="a")
        number()
        future = TrackedResource.objects.get().stamp + 1_000_000
        TrackedResource.objects.update(stamp=future)
        account.name = "b"
        account.save()
        number()
        assert TrackedResource.objects.get().stamp == future + 1

    def test_an_edit_overrules_what_was_deferred(self):
        account = Account.objects.create(name="a")
        number()
        tracked = TrackedResource.objects.get()
        TrackedResource.objects.update(is_deferred=True)
        DeferredEntry.objects.create(
            resource=tracked,
            payload="<x/>",
            application_code="x",
            reason="x",
            received_at="2024-01-01T00:00:00Z",
        )
        account.save()
        assert number() == 2, "saving what is there is no edit"
        account.name = "b"
        account.save()
        assert number() == 3
        assert not DeferredEntry.objects.exists()
        assert not TrackedResource.objects.get().is_deferred


@pytest.mark.django_db
class TestInheritance:
    @pytest.fixture
    def restaurants(self):
        with sdata_sync.registered(Restaurant) as resource:
            yield resource

    @pytest.fixture
    def places(self):
        with sdata_sync.registered(Place) as resource:
            yield resource

    def test_a_child_has_its_parents_fields(self, restaurants):
        assert [prop.name for prop in restaurants.properties] == ["name", "stars"]

    def test_a_child_saved_through_its_parent(self, restaurants):
        restaurant = Restaurant.objects.create(name="a", stars=1)
        number(restaurants)
        place = Place.objects.get()
        place.name = "b"
        place.save()
        assert number(restaurants) == 3
        assert restaurant.pk == int(log("restaurants")[0][0])

    def test_a_parent_that_is_nobodys_parent(self, restaurants):
        Place.objects.create(name="only a place")
        assert number(restaurants) == 1

    def test_a_parent_saved_through_its_child(self, places):
        restaurant = Restaurant.objects.create(name="a", stars=1)
        assert number(places) == 2
        restaurant.name = "b"
        restaurant.save()
        assert number(places) == 3
        restaurant.delete()
        assert number(places) == 4
        assert log("places")[-1] == (None, 3, True)

    def test_a_child_deleted_through_its_parent(self, restaurants):
        Restaurant.objects.create(name="a")
        number(restaurants)
        Place.objects.get().delete()
        assert number(restaurants) == 3

    def test_a_proxy(self, places):
        favourite = FavouritePlace.objects.create(name="a")
        assert number(places) == 2
        favourite.name = "b"
        favourite.save()
        assert number(places) == 3
        favourite.delete()
        assert number(places) == 4


@pytest.mark.django_db(transaction=True)
class TestAutocommit:
    def test_create_update_delete(self):
        account = Account.objects.create(name="a")
        assert TrackedResource.objects.get().is_intent is False
        assert number() == 2
        account.name = "b"
        account.save()
        assert number() == 3
        account.delete()
        assert number() == 4
        assert log() == [(None, 3, True)]
        assert TrackedResource.objects.count() == 1

    def test_a_key_of_ones_own(self):
        with sdata_sync.registered(Coupon) as coupons:
            coupon = Coupon.objects.create(code="a")
            assert number(coupons) == 2
            assert log("coupons") == [(str(coupon.pk), 1, False)]

    def test_what_the_database_undoes_of_a_mark_is_done_again(self):
        """A deadlock over a mark is not the application's, whose row may be written already."""
        undone = []

        def undo_every_first(execute, sql, params, many, context):
            if "sdata_sync_trackedresource" in sql and sql not in undone[-1:]:
                undone.append(sql)
                raise OperationalError("database is locked")
            return execute(sql, params, many, context)

        with sdata_sync.registered(Restaurant) as restaurants:
            with connection.execute_wrapper(undo_every_first):
                account = Account.objects.create(name="a")
                restaurant = Restaurant.objects.create(name="a")
            assert (number(), number(restaurants)) == (2, 2)
            with connection.execute_wrapper(undo_every_first):
                account.name = "b"
                account.save()
                Place.objects.get(pk=restaurant.pk).save()
            assert len(undone) >= 6
            assert marked() == {str(account.pk)}
            assert marked("restaurants") == {str(restaurant.pk)}

    def test_a_crash_after_the_row_was_committed(self, monkeypatch):
        """The second mark never comes; what the first one left behind is enough."""
        account = Account.objects.create(name="a")
        number()
        self.crash_on_save(monkeypatch, account, name="b")
        assert number() == 3
        assert marked(), "while the mark is young, the writer may still be at it"
        monkeypatch.setattr(stamping, "INTENT_GRACE_MILLIS", 0)
        assert number() == 3
        assert marked() == set()

    def test_a_crash_between_the_stamper_and_the_row(self, monkeypatch):
        """The stamper runs between the first mark and the row; the mark must not be gone when the row comes."""
        account = Account.objects.create(name="a")
        number()
        original = Account.save_base

        def save_base(self, **kwargs):
            pre_save.send(Account, instance=self, raw=False, using="default", update_fields=None)
            number()
            models_signals_off(monkeypatch)
            original(self, **kwargs)

        monkeypatch.setattr(Account, "save_base", save_base)
        account.name = "b"
        account.save()
        assert number() == 3

    def test_a_crash_while_a_row_was_born(self, monkeypatch):
        models_signals_off(monkeypatch, only_after=True)
        Account.objects.create(name="a")
        assert number() == 1, "its key is not known, and its writer may still be there"
        monkeypatch.setattr(stamping, "INTENT_GRACE_MILLIS", 0)
        number()
        assert number() == 2
        assert log() == [(str(Account.objects.get().pk), 1, False)]
        assert TrackedResource.objects.count() == 1

    def test_a_save_that_fails_leaves_nothing_for_good(self, monkeypatch):
        account = Account.objects.create(name="a")
        number()
        with pytest.raises(IntegrityError):
            Account(name=None).save()
        account.name = None
        with pytest.raises(IntegrityError):
            account.save()
        account.name = "b"
        account.save()
        monkeypatch.setattr(stamping, "INTENT_GRACE_MILLIS", 0)
        assert number() == 3
        assert TrackedResource.objects.count() == 1
        assert marked() == set()

    def test_an_instance_is_used_again_after_a_failed_save_in_a_transaction(self):
        account = Account.objects.create(name="a")
        number()
        account.name = None
        with pytest.raises(IntegrityError), transaction.atomic():
            account.save()
        account.name = "b"
        account.save()
        row = TrackedResource.objects.get()
        assert (row.mark is not None, row.is_intent) == (True, False)

    @staticmethod
    def crash_on_save(monkeypatch, account, **values):
        models_signals_off(monkeypatch, only_after=True)
        for name, value in values.items():
            setattr(account, name, value)
        account.save()


def models_signals_off(monkeypatch, *, only_after=False):
    """Take our receivers off, as a process that dies does."""
    from django.db.models import signals

    from sdata_sync.sync.capture import signals as capture

    for signal, receiver in capture.RECEIVERS:
        if signal is signals.post_save or not only_after:
            signal.disconnect(receiver, sender=Account, dispatch_uid=capture.UID)
    reconnect = [(s, r) for s, r in capture.RECEIVERS]

    def undo():
        for signal, receiver in reconnect:
            signal.connect(receiver, sender=Account, dispatch_uid=capture.UID)

    _UNDO.append(undo)


_UNDO: list = []


@pytest.fixture(autouse=True)
def receivers_back():
    yield
    while _UNDO:
        _UNDO.pop()()


@pytest.mark.django_db
class TestManager:
    def test_bulk_create(self, bulk):
        BulkAccount.objects.bulk_create([BulkAccount(name=n) for n in "abc"])
        assert number(bulk) == 4

    def test_update_marks_exactly_what_it_updates(self, bulk):
        BulkAccount.objects.bulk_create([BulkAccount(name=n, rank=i) for i, n in enumerate("abc")])
        number(bulk)
        assert BulkAccount.objects.filter(rank__gte=1).update(rank=F("rank") + 1) == 2
        assert len(marked("bulkAccounts")) == 2
        assert number(bulk) == 6
        assert BulkAccount.objects.filter(rank=99).update(name="x") == 0

    def test_bulk_update(self, bulk):
        rows = BulkAccount.objects.bulk_create([BulkAccount(name=n) for n in "abc"])
        number(bulk)
        for row in rows[:2]:
            row.rank = 7
        assert BulkAccount.objects.bulk_update(rows, ["rank"]) == 3
        assert number(bulk) == 6, "the third did not change"

    def test_a_queryset_of_an_unregistered_model_is_an_ordinary_one(self):
        BulkAccount.objects.bulk_create([BulkAccount(name="a")])
        assert BulkAccount.objects.update(name="b") == 1
        assert not TrackedResource.objects.exists()


@pytest.mark.django_db
class TestHeldBack:
    """A change that XML cannot hold is not numbered: it is neither lost nor promised, and others go on."""

    def test_until_it_can_be_sent(self, caplog):
        broken = Account.objects.create(name="bell\x07")
        Account.objects.create(name="fine")
        with caplog.at_level(logging.ERROR):
            assert number() == 2
        assert "name: XML cannot hold the character U+0007" in caplog.text
        assert "U+0007" in TrackedResource.objects.get(local_key=str(broken.pk)).problem
        broken.name = "bell"
        broken.save()
        assert number() == 3
        assert TrackedResource.objects.get(local_key=str(broken.pk)).problem == ""

    def test_a_version_that_was_sent_before(self):
        account = Account.objects.create(name="a")
        number()
        account.name = "\x07"
        account.save()
        stored = assign_ticks(ACCOUNTS)
        page = prepare_page(ACCOUNTS, stored, stored.value.__class__(), limit=10)
        assert page.entries == []


@pytest.mark.django_db
class TestPages:
    def read(self, **kwargs):
        stored = assign_ticks(ACCOUNTS)
        return prepare_page(ACCOUNTS, stored, stored.value.__class__(), **kwargs)

    def test_pages_continue_where_the_last_one_ended(self):
        for n in range(5):
            Account.objects.create(name=str(n))
        stored = assign_ticks(ACCOUNTS)
        cursor, sizes, ticks = stored.value.__class__(), [], []
        while True:
            page = prepare_page(ACCOUNTS, stored, cursor, limit=2)
            sizes.append(len(page.entries))
            ticks += [state.tick for state in page.states]
            if page.is_last:
                break
            cursor = page.cursor
        assert sizes == [2, 2, 1]
        assert ticks == [1, 2, 3, 4, 5]
        assert page.cursor.covers(stored.value)

    def test_a_version_that_changed_since_is_not_sent_under_its_old_state(self):
        account = Account.objects.create(name="a")
        stored = assign_ticks(ACCOUNTS)
        stored.stamped_texts.clear()
        account.name = "b"
        account.save()
        assert prepare_page(ACCOUNTS, stored, stored.value.__class__(), limit=10).entries == []
        assert len(self.read(limit=10).entries) == 1

    def test_what_was_written_past_the_signals_is_found_on_the_way(self):
        Account.objects.create(name="a")
        stored = assign_ticks(ACCOUNTS)
        stored.stamped_texts.clear()
        with connection.cursor() as cursor:
            cursor.execute("UPDATE crm_account SET name = 'raw'")
        assert prepare_page(ACCOUNTS, stored, stored.value.__class__(), limit=10).entries == []
        page = self.read(limit=10)
        assert [state.tick for state in page.states] == [2]
        assert "<name>raw</name>" in page.entries[0]


@pytest.mark.django_db
class TestUser:
    def test_in_a_request(self, admin_user):
        request = RequestFactory().get("/")
        request.user = admin_user
        SyncUserMiddleware(lambda request: Account.objects.create(name="a"))(request)
        number()
        assert TrackedResource.objects.get().user == "admin"

    def test_in_a_command(self):
        with sdata_sync.acting_as("night\x00shift" + "x" * 200):
            Account.objects.create(name="a")
        Account.objects.create(name="b")
        number()
        assert sorted(len(row.user) for row in TrackedResource.objects.all()) == [0, 150]


@pytest.mark.django_db
class TestSuppression:
    def test_only_what_is_applied_is_not_captured(self):
        one, other = Account.objects.create(name="a"), Account.objects.create(name="b")
        number()
        with applying("accounts", keys=[str(one.pk)]):
            one.save()
            other.save()
            with applying("accounts", keys=[str(other.pk)]):
                other.save()
                one.save()
        assert marked() == {str(other.pk)}


@pytest.mark.django_db
def test_a_digest_is_stored_with_our_priority():
    Account.objects.create(name="a")
    number()
    assert DigestEntry.objects.get().conflict_priority == 5
