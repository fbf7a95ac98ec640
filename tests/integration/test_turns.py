"""The writers of one process take turns on a SQLite file, so that none finds it locked."""

import os
import subprocess
import sys

import pytest

THREADS, KINDS, PAGES = 6, 12, 8

SCRIPT = f"""
import io, threading
import django
django.setup()
from django.core.management import call_command
from django.db import connection, connections, models
call_command("migrate", verbosity=0)
import sdata_sync
from sdata_sync.registry import registry
from sdata_sync.sync.apply.receive import receive_feed
from tests.seams import ENGINE
from sdata_sync.sync.stamp.stamper import assign_ticks
from sdata_sync.delivery.lease import ensure_stream
from sdata_sync.models import Peer
from tests.wire import digest_xml, entry_xml, feed_xml
from uuid import UUID

kinds = []
for number in range({KINDS}):
    meta = type("Meta", (), {{"app_label": "crm"}})
    model = type(f"Thing{{number}}", (models.Model,), {{
        "__module__": "testproject.crm.models", "Meta": meta, "name": models.CharField(max_length=50)}})
    sdata_sync.register(model)(type("Sync", (sdata_sync.SyncResource,), {{}}))
    with connection.schema_editor() as editor:
        editor.create_model(model)
    kinds.append(registry.of_model(model))
peer = Peer.objects.create(name="peer", url="http://peer/sdata/shop/crm/-")
# The mode is kept in the file. This connection stays open: SQLite locks the file when the first is opened and the last closed.
with connection.cursor() as cursor:
    cursor.execute("PRAGMA journal_mode=WAL")
list(Peer.objects.all())

failures = []

def failing(execute, sql, params, many, context):
    try:
        return execute(sql, params, many, context)
    except Exception as error:
        failures.append(f"{{sql[:60]}}: {{error}}")
        raise

def work(number):
    try:
        with connections["default"].execute_wrapper(failing):
            for page in range({PAGES}):
                for kind in kinds:
                    source = f"http://peer{{number}}/sdata/shop/crm/-/{{kind.name}}"
                    uuid = UUID(int=(number + 1) * 10**6 + page)
                    tick = page + 1
                    entry = entry_xml(uuid, source, tick, f"<name>{{page}}</name>", element=kind.element_name)
                    feed = feed_xml(digest_xml((source, tick + 1), origin=source), entry, mode="catchUp")
                    receive_feed(kind, io.BytesIO(feed.encode()), ENGINE)
                    assign_ticks(kind)
                    ensure_stream(peer, kind.name)
                    peer.save()
    except Exception as error:
        failures.append(repr(error))
    finally:
        connections.close_all()

threads = [threading.Thread(target=work, args=(number,)) for number in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("rows", sum(kind.rows().count() for kind in kinds))
print("failures", len(failures), sorted(set(failures))[:3])
"""


@pytest.mark.skipif("SDATA_SERVER" in os.environ, reason="SQLite has this lock")
def test_no_writer_finds_the_database_locked(tmp_path):
    environment = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
        "DJANGO_SETTINGS_MODULE": "tests.impatient_settings",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "failures 0 []" in done.stdout, done.stdout
    assert f"rows {THREADS * KINDS * PAGES}" in done.stdout
