"""Scanning and purging."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection

from sdata_sync.core.digest import Digest, DigestEntry
from sdata_sync.models import TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.log import tracked as untracked
from sdata_sync.sync.stamp.purge import purge
from sdata_sync.sync.stamp.scan import track_existing
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..wire import APP1, APP2, UUIDS, digest_xml, entry_xml, feed_xml, post

pytestmark = pytest.mark.django_db

ACCOUNTS = registry.of_kind("accounts")


def run(*arguments) -> dict:
    out = StringIO()
    call_command(*arguments, "--json", stdout=out)
    return json.loads(out.getvalue())["accounts"]


def tick() -> int:
    return assign_ticks(ACCOUNTS).value.tick(APP2)


class TestScan:
    @pytest.fixture(autouse=True)
    def rows(self, monkeypatch):
        monkeypatch.setattr("sdata_sync.sync.stamp.scan.BATCH", 2)
        monkeypatch.setattr(untracked, "BATCH", 2)
        for n in range(5):
            Account.objects.create(name=f"a{n}")
        assert tick() == 6

    def test_nothing(self):
        assert run("sync_scan") == {"looked_at": 5, "new": 0, "changed": 0, "deleted": 0}
        assert tick() == 6

    def test_whatever_came_past_the_signals(self):
        with connection.cursor() as cursor:
            cursor.execute("UPDATE crm_account SET city = 'raw' WHERE name IN ('a0', 'a3')")
            cursor.execute("DELETE FROM crm_account WHERE name = 'a4'")
        Account.objects.bulk_create([Account(name=f"b{n}") for n in range(3)])
        expected = {"looked_at": 5, "new": 3, "changed": 2, "deleted": 1}
        assert run("sync_scan", "--dry-run") == expected
        assert tick() == 6
        assert run("sync_scan") == expected
        assert tick() == 12
        assert TrackedResource.objects.get(is_deleted=True).local_key is None
        assert run("sync_scan") == {"looked_at": 7, "new": 0, "changed": 0, "deleted": 0}

    def test_a_version_that_waits_is_no_change(self, peer_client):
        entry = entry_xml(UUIDS[1], APP1, 1, "<name>x</name><country>NOPE</country>")
        post(peer_client, feed_xml(digest_xml((APP1, 2)), entry, mode="catchUp", next_url="more"))
        assert run("sync_scan") == {"looked_at": 5, "new": 0, "changed": 0, "deleted": 0}


class TestExisting:
    def test_goes_on_where_it_was_interrupted(self, monkeypatch):
        monkeypatch.setattr(untracked, "BATCH", 2)
        Account.objects.bulk_create([Account(name=f"a{n}") for n in range(7)])

        class Interrupted(Exception):
            pass

        def interrupt(count):
            raise Interrupted

        with pytest.raises(Interrupted):
            track_existing(ACCOUNTS, on_batch=interrupt)
        assert TrackedResource.objects.count() == 2
        assert track_existing(ACCOUNTS) == 5
        assert sorted(TrackedResource.objects.values_list("tick", flat=True)) == [1, 2, 3, 4, 5, 6, 7]
        assert tick() == 8

    def test_a_row_that_cannot_be_sent_is_held_back(self):
        Account.objects.bulk_create([Account(name="fine"), Account(name="a\x01b")])
        track_existing(ACCOUNTS)
        held = TrackedResource.objects.get(tick=None)
        assert "U+0001" in held.problem
        assert tick() == 2


class TestPurge:
    @pytest.fixture(autouse=True)
    def stones(self):
        for n in range(4):
            Account.objects.create(name=f"a{n}")
        tick()
        for n in range(3):
            Account.objects.get(name=f"a{n}").delete()
        assert tick() == 8  # tombstones at 5, 6, 7

    def digest(self, tick):
        return Digest([DigestEntry(endpoint=APP2, tick=tick)])

    def purge(self, **options):
        options = {"older_than": None, "dry_run": False, **options}
        peers = options.pop("peers")
        done = purge(ACCOUNTS, peers, **options)
        return done.removed, done.kept, done.missed_by

    def test_only_what_every_peer_has(self):
        peers = {"one": self.digest(8), "two": self.digest(7)}
        assert self.purge(peers=peers, dry_run=True) == (2, 1, ())
        assert self.purge(peers=peers) == (2, 1, ())
        assert TrackedResource.objects.filter(is_deleted=True).get().tick == 7
        assert TrackedResource.objects.filter(is_deleted=False).count() == 1

    def test_a_peer_that_is_not_known_holds_them_up(self):
        assert self.purge(peers={"one": self.digest(8), "away": None}) == (0, 3, ())

    def test_by_age_with_a_warning(self):
        TrackedResource.objects.filter(tick__lt=7).update(stamp=1)
        peers = {"one": self.digest(8), "slow": self.digest(6), "away": None}
        assert self.purge(peers=peers, older_than=timedelta(days=30)) == (2, 1, ("slow", "away"))

    def test_a_retired_peer_holds_up_nothing(self, capsys):
        assert run("sync_purge") == {"removed": 3, "kept": 0, "missed_by": []}

    def test_what_was_purged_does_not_come_back(self, peer_client):
        uuid = TrackedResource.objects.get(tick=5).uuid
        self.purge(peers={})
        old = entry_xml(uuid, APP2, 1, "<name>ghost</name>")
        post(peer_client, feed_xml(digest_xml((APP2, 5), origin=APP1), old, mode="catchUp"))
        assert not Account.objects.filter(name="ghost").exists()
