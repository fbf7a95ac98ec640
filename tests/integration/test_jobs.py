"""Deliveries that stop, or wait for one another; and what the workers of a task queue post because of it."""

import time
from contextlib import suppress

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from sdata_sync import tasks as tasks_of_celery
from sdata_sync.conf import conf
from sdata_sync.delivery import push as passages
from sdata_sync.delivery import push as pushing
from sdata_sync.delivery import session as sessions
from sdata_sync.delivery.backends import jobs
from sdata_sync.delivery.backends.queue import claim_deliveries
from sdata_sync.delivery.client import PeerClient
from sdata_sync.delivery.lease import ensure_stream
from sdata_sync.delivery.session import PeerSession
from sdata_sync.models import Peer, Stream, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.apply import applier as applying
from sdata_sync.sync.db.clock import now
from testproject.crm.models import Account, SalesOrder

from ..talk import level

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("relations"),
]


def somebody_else():
    return {"holder": "somewhere-else:1", "held_until": now() + int(conf.lease_seconds * 1000)}


@pytest.fixture
def applied(monkeypatch):
    """What was applied, page by page: the kind, and how many entries."""
    pages = []
    usual = applying.Applier.finish

    def finish(self, **options):
        if self.results:
            pages.append((self.kind.name, len(self.results)))
        return usual(self, **options)

    monkeypatch.setattr(applying.Applier, "finish", finish)
    return pages


@pytest.fixture
def peer(a, b):
    with a.at_work():
        return Peer.objects.get(name=b.alias)


def make_order(number):
    account = Account.objects.create(name=f"Account {number}")
    return SalesOrder.objects.create(account=account, order_number=number, order_date="2026-01-01")


def held(peer, kind):
    ensure_stream(peer, kind)
    return Stream.objects.filter(peer=peer, kind=kind)


class TestStopping:
    def test_nothing_is_begun_after_the_page_that_was_under_way(self, a, b, peer, applied, monkeypatch):
        """What refers to it would have it sent ahead, a page for each kind."""
        with a.at_work(), PeerSession(peer) as session:
            for number in range(120):
                make_order(number)
            usual = session.client

            def client():
                if applied:
                    session.interrupt()
                return usual()

            monkeypatch.setattr(session, "client", client)
            assert session.deliver(registry) is not None
            assert len({kind for kind, _ in applied}) == 1
            assert len(applied) <= 2
            assert not Stream.objects.exclude(holder="").exists()
            assert not Stream.objects.filter(failures__gt=0).exists()
        with a.at_work(), PeerSession(peer) as session:
            assert session.deliver(registry) is None
        assert level(a, b)

    def test_a_pull_stops_between_two_pages_and_goes_on_at_once(self, a, b, applied, monkeypatch):
        with a.at_work():
            for number in range(60):
                make_order(number)
        with b.at_work(), PeerSession(Peer.objects.get(name=a.alias)) as session:
            with monkeypatch.context() as patched:
                patched.setattr(PeerSession, "is_to_stop", property(lambda self: bool(applied)))
                for resource in registry:
                    session.compare_and_pull(resource)
            assert applied == [("accounts", 50)]
            assert not Stream.objects.exclude(last_error="").exists()
            for resource in registry:
                session.compare_and_pull(resource)
        assert level(a, b)


class TestWaiting:
    def test_what_is_numbered_meanwhile_stays_behind_what_another_delivers(self, a, b, peer, monkeypatch):
        a.settings["PAGE_SIZE"] = a.settings["MAX_PAGE_SIZE"] = 1
        with a.at_work(), PeerSession(peer) as session:
            make_order(0)
            assert session.deliver(registry) is None
            make_order(1)
            make_order(2)
            usual, looks = pushing.check_and_assign_ticks, []

            def assign_ticks(resource, **options):
                if resource.name == "salesOrders":
                    looks.append(resource)
                    if len(looks) == 1:  # between two pages
                        held(peer, "accounts").update(**somebody_else())
                        make_order(3)
                return usual(resource, **options)

            monkeypatch.setattr(pushing, "check_and_assign_ticks", assign_ticks)
            due = session.deliver(registry)
            assert due is not None
            assert due - now() < 1000
            with b.at_work():
                assert not SalesOrder.objects.filter(order_number=3).exists()
            held(peer, "accounts").update(holder="", held_until=0)
            assert session.deliver(registry) is None
        assert level(a, b)

    def test_the_longer_another_is_at_it_the_more_rarely_is_it_asked_for(self, a, b, peer, monkeypatch):
        monkeypatch.setattr(sessions, "now", lambda: 0)
        with a.at_work(), PeerSession(peer) as session:
            make_order(1)
            held(peer, "accounts").update(**somebody_else())
            pauses = [session.deliver(registry) for _ in range(9)]
            assert pauses == [20, 30, 45, 67, 101, 151, 227, 250, 250]
            held(peer, "accounts").update(holder="", held_until=0)
            assert session.deliver(registry) is None
            held(peer, "accounts").update(**somebody_else())
            make_order(2)
            assert session.deliver(registry) == 20


class TestPosting:
    @pytest.fixture
    def posted(self, monkeypatch):
        monkeypatch.setattr(jobs, "TURNS", 2)
        return []

    @pytest.fixture
    def post(self, posted):
        def post(job, *arguments, delay=0):
            posted.append((job, *arguments, delay > 0))
            return True

        return post

    def test_nothing_when_everything_arrives(self, a, b, peer, post, posted):
        with a.at_work():
            make_order(1)
            jobs.deliver(peer.pk, post=post)
        assert posted == []
        assert level(a, b)

    def test_what_waits_behind_another_worker_once_for_each_kind(self, a, b, peer, post, posted):
        with a.at_work():
            make_order(1)
            held(peer, "accounts").update(**somebody_else())
            jobs.deliver(peer.pk, ["salesOrders"], post=post)
            kinds = posted.pop()[2]
            assert set(kinds) == {"accounts", "contacts", "salesOrders"}
            jobs.deliver(peer.pk, ["contacts"], post=post)
            assert posted.pop() == ("deliver", peer.pk, ["contacts"], True)
            held(peer, "accounts").update(holder="", held_until=0)
            jobs.deliver(peer.pk, kinds, post=post)
        assert posted == []
        assert level(a, b)

    def test_a_heartbeat_adds_no_other(self, a, b, peer, post, posted):
        """However long another is at it: what waits has one message, which comes again and again."""
        with a.at_work():
            make_order(1)
            held(peer, "accounts").update(**somebody_else())
            for _ in range(5):
                jobs.deliver(peer.pk, post=post)  # the heartbeat's
                under_way, posted[:] = list(posted), []
                assert sum(len(kinds) for _, _, kinds, _ in under_way) <= 3
                for _, pk, kinds, _ in under_way:
                    jobs.deliver(pk, kinds, post=post)

    @pytest.mark.parametrize("how", ["no later", "broker away"])
    def test_what_could_not_be_posted_is_not_taken_for_posted(self, a, peer, how):
        def post(*arguments, delay=0):
            if how == "broker away":
                raise ConnectionError
            return False

        with a.at_work():
            make_order(1)
            held(peer, "accounts").update(**somebody_else())
            with suppress(ConnectionError):
                jobs.deliver(peer.pk, ["accounts", "salesOrders"], post=post)
            assert not Stream.objects.filter(posted_at__gt=0).exists()
            assert peer.pk in claim_deliveries({"salesOrders": True})

    @pytest.mark.parametrize("is_new", [True, False])
    def test_what_failed_in_a_way_that_nobody_thought_of_a_second_later(self, a, peer, monkeypatch, is_new):
        pauses = []

        def post(*arguments, delay=0):
            pauses.append(delay)
            return True

        with a.at_work():
            if not is_new:
                held(peer, "accounts")
            monkeypatch.setattr(sessions, "check_and_assign_ticks", lambda *arguments, **options: 1 / 0)
            jobs.deliver(peer.pk, ["accounts"], post=post)
            assert pauses == [1.0]

    def test_everybody_gets_ahead_however_long_it_takes_to_begin(self, a, b, peer, post, posted, monkeypatch):
        usual = passages.review

        def review(*arguments):
            time.sleep(0.2)
            return usual(*arguments)

        monkeypatch.setattr(passages, "review", review)
        monkeypatch.setattr(jobs, "DELIVERY_SECONDS", 0.1)
        with a.at_work():
            Account.objects.create(name="Slow")
            jobs.deliver(peer.pk, ["accounts"], post=post)
        with b.at_work():
            assert Account.objects.get().name == "Slow"

    @pytest.mark.parametrize("what", ["catch_up", "compare", "deliver"])
    def test_when_the_time_of_a_task_is_up_that_is_no_failure_of_a_kind(self, a, peer, what, monkeypatch):
        """Celery says so once, by an exception, wherever the task is; who takes it for a failure is killed later."""
        posted = []
        monkeypatch.setattr(tasks_of_celery, "post", lambda job, *arguments, delay=0: posted.append((job, *arguments)))

        def read_digest(self, kind):
            raise SoftTimeLimitExceeded

        monkeypatch.setattr(PeerClient, "read_digest", read_digest)
        with a.at_work():
            make_order(1)
            if what == "catch_up":
                tasks_of_celery.catch_up(peer.pk)
                assert posted == [("catch_up", peer.pk)]
            else:
                with pytest.raises(SoftTimeLimitExceeded):
                    getattr(tasks_of_celery, what)(peer.pk)
            assert not Stream.objects.exclude(holder="").exists()

    def test_what_failed_by_itself_when_it_is_due(self, a, b, peer, post, posted, monkeypatch):
        with a.at_work():
            make_order(1)
            monkeypatch.setattr(PeerSession, "client", lambda self: 1 / 0)
            jobs.deliver(peer.pk, post=post)
            assert ("deliver", peer.pk, ["accounts"], True) in posted
            assert all(len(kinds) == 1 and is_delayed for _, _, kinds, is_delayed in posted)
            assert len(posted) == len({kinds[0] for _, _, kinds, _ in posted})

    def test_a_comparison_again_when_its_time_was_up(self, a, b, peer, post, posted, monkeypatch):
        with a.at_work():
            jobs.compare(peer.pk, post=post)
            assert posted == []
            monkeypatch.setattr(jobs, "DELIVERY_SECONDS", -1)
            jobs.compare(peer.pk, post=post)
            assert posted[0] == ("compare", peer.pk, False)

    def test_the_whole_again_when_its_time_was_up(self, a, b, peer, post, posted, monkeypatch):
        with a.at_work():
            make_order(1)
            monkeypatch.setattr(jobs, "DELIVERY_SECONDS", -1)
            jobs.deliver(peer.pk, ["accounts", "salesOrders"], post=post)
            assert posted == [("deliver", peer.pk, ["accounts", "salesOrders"], False)]


class TestAClockThatIsSetBackByADay:
    """Times that were stored before are a day ahead, and nobody waits for them."""

    DAY = 24 * 60 * 60 * 1000

    @pytest.mark.parametrize(
        "times",
        [["retry_at"], ["held_until"], ["posted_at"], ["compared_at"], ["retry_at", "held_until", "compared_at"]],
        ids="-".join,
    )
    def test_deliveries_and_comparisons_go_on(self, a, b, peer, times):
        a.settings["HEARTBEAT_SECONDS"] = 60
        with a.at_work(), PeerSession(peer) as session:
            make_order(1)
            for kind in registry:
                stored = {name: now() + self.DAY for name in times}
                held(peer, kind.name).update(holder="elsewhere/1/1" if "held_until" in times else "", **stored)
            assert {"accounts", "salesOrders"} <= set(claim_deliveries({kind.name: True for kind in registry})[peer.pk])
            assert session.deliver(registry) is None
            for kind in registry:
                session.compare_and_pull(kind)
            assert not Stream.objects.filter(compared_at__gt=now()).exists()
            assert not Stream.objects.filter(compared_at=0).exists()
        assert level(a, b)

    def test_the_mark_of_a_writer_that_died_is_cleared(self, a, b, peer):
        with a.at_work(), PeerSession(peer) as session:
            make_order(1)
            assert session.deliver(registry) is None
            TrackedResource.objects.update(mark=now() + self.DAY, is_intent=True)
            assert session.deliver(registry) is None
            assert not TrackedResource.objects.exclude(mark=None).exists()
