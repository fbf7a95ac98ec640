"""What somebody sees who watches: metrics, the check for monitors, log records, spans."""

import json
import logging
from io import StringIO

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families
from rest_framework.authtoken.models import Token

from sdata_sync.delivery.session import PeerSession
from sdata_sync.models import Peer, Stream, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

from ..talk import push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("relations"),
]


def checked(*options) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("sync_status", "--check", *options, stdout=out)
    except SystemExit as end:
        return end.code, out.getvalue()
    return 0, out.getvalue()


def scraped(node) -> dict[tuple[str, ...], float]:
    with node.at_work():
        watcher, _ = User.objects.get_or_create(username="watcher")
        watcher.user_permissions.set(Permission.objects.filter(codename="view_stream"))
        token, _ = Token.objects.get_or_create(user=watcher)
        answer = Client(headers={"authorization": f"Token {token.key}"}).get(
            "/metrics/", headers={"accept": "text/plain"}
        )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.content.decode())
    return {
        (sample.name.removeprefix("sdata_sync_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def age(node, seconds):
    """Let every change at ``node`` be older than it is."""
    with node.at_work():
        for tracked in TrackedResource.objects.all():
            tracked.stamp -= seconds * 1000
            tracked.mark = tracked.mark and tracked.mark - seconds * 1000
            tracked.save()


class TestMetrics:
    def test_what_is_counted(self, a, b):
        with a.at_work():
            Account.objects.create(name="One")
            Account.objects.create(name="Two")
        push(a, b)
        seen = scraped(a)
        assert seen["ticks_behind", "accounts", b.alias] == 0
        assert seen["seconds_behind", "accounts", b.alias] == 0
        assert seen["delivered_entries_total", "accounts", b.alias] == 2
        assert seen["delivery_seconds_count", "accounts", b.alias] >= 1
        assert seen["failed_deliveries_total", "accounts", b.alias] == 0
        assert scraped(b)["received_entries_total", "accounts", "applied"] == 2
        with a.at_work():
            Account.objects.filter(name="One").get().save()
            row = Account.objects.get(name="Two")
            row.city = "Rome"
            row.save()
        age(a, 90)
        with a.at_work():
            assign_ticks(registry.of_kind("accounts"))
        seen = scraped(a)
        assert seen["ticks_behind", "accounts", b.alias] == 1
        assert 90 <= seen["seconds_behind", "accounts", b.alias] < 200

    def test_conflicts_and_what_was_known(self, a, b):
        with a.at_work():
            row = Account.objects.create(name="One")
        push(a, b)
        for node, city in ((a, "Rome"), (b, "Oslo")):
            with node.at_work():
                row = Account.objects.get()
                row.city = city
                row.save()
        push(a, b)
        assert scraped(b)["conflicts_total", "accounts"] == 1

    def test_nobody_learns_anything_without_the_permission(self, db):
        assert Client().get("/metrics/").status_code == 401
        user = User.objects.create_user("nobody")
        key = Token.objects.create(user=user).key
        assert Client(headers={"authorization": f"Token {key}"}).get("/metrics/").status_code == 403


class TestCheck:
    def test_well(self, a, b):
        with a.at_work():
            Account.objects.create(name="One")
        push(a, b)
        with a.at_work():
            Peer.objects.exclude(name=b.alias).delete()
            assert checked() == (0, "SDATA OK - 8 streams, all in time\n".replace("8", str(len(list(registry)))))

    @pytest.mark.parametrize(("seconds", "status"), [(30, 0), (90, 1), (700, 2)])
    def test_a_change_that_nobody_delivers(self, a, b, seconds, status):
        push(a, b)
        with a.at_work():
            Peer.objects.exclude(name=b.alias).delete()
            Account.objects.create(name="One")
        age(a, seconds)
        with a.at_work():
            code, text = checked()
            assert code == status
            assert ("accounts to node1" in text) == bool(status)
            code, text = checked("--warning", "10000", "--critical", "10000", "--json")
            assert (code, json.loads(text)["level"]) == (0, "OK")

    def test_a_peer_that_never_answered(self, a, b):
        with a.at_work():
            stream = Stream.objects.create(
                peer=Peer.objects.get(name=b.alias), kind="accounts", failures=1, last_error="refused"
            )
            assert checked()[0] == 1
            stream.failures = 5
            stream.save()
            assert checked()[0] == 2
            assert "failed 5 times in a row: refused" in checked()[1]

    def test_one_that_is_caught_up_by_night_may_be_behind_by_day(self, a, b):
        push(a, b)
        with a.at_work():
            Peer.objects.exclude(name=b.alias).delete()
            Peer.objects.update(immediate=False)
            Account.objects.create(name="One")
        age(a, 20 * 3600)
        with a.at_work():
            assert checked()[0] == 0
        age(a, 10 * 3600)
        with a.at_work():
            assert checked()[0] == 1

    def test_thresholds_the_wrong_way_round(self, db):
        with pytest.raises(CommandError, match="no fewer"):
            call_command("sync_status", "--check", "--warning", "60", "--critical", "10")


def test_log_records_say_which_run_peer_kind_and_ticks(a, b, caplog):
    with a.at_work():
        Account.objects.create(name="One")
        Account.objects.create(name="Two")
        with caplog.at_level(logging.INFO, logger="sdata_sync"), PeerSession(Peer.objects.get(name=b.alias)) as session:
            session.deliver([registry.of_kind("accounts")])
    [record] = [record for record in caplog.records if getattr(record, "ticks", None)]
    assert (record.peer, record.kind, record.entries) == (b.alias, "accounts", 2)
    assert record.ticks == {registry_endpoint(a): [1, 2]}
    assert b.base_url in record.run


def registry_endpoint(node) -> str:
    return f"{node.base_url}/accounts"


def test_spans_where_there_is_opentelemetry(a, b):
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
    with a.at_work():
        Account.objects.create(name="One")
    push(a, b)
    spans = {span.name: dict(span.attributes) for span in exporter.get_finished_spans()}
    assert {"sdata_sync.post_page", "sdata_sync.apply_page"} <= spans.keys()
    assert spans["sdata_sync.post_page"]["sdata_sync.peer"] == b.alias
