"""Equal digests mean equal columns: what stands in a row's columns at the source stands in them at the target."""

import datetime as dt
import json

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, models
from django.db.models.signals import post_save

import sdata_sync
from sdata_sync.checks import check_resources
from sdata_sync.codecs import unregister_codec
from sdata_sync.models import DeferredEntry
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.scan import scan

from ..many_nodes import two_nodes
from ..shapes.models import Colour, EveryField, Loose, Stamped, Wilful
from ..talk import level, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"]),
    pytest.mark.xdist_group("columns"),
]


@pytest.fixture
def nodes(monkeypatch):
    with two_nodes(monkeypatch, Wilful, Loose, EveryField, Stamped) as nodes:
        yield nodes


def table(node, model):
    """Return the rows of a table, by plain SQL; JSON as the values that it means."""
    fields = [field for field in model._meta.concrete_fields if not field.primary_key]
    columns = ", ".join(connections[node.alias].ops.quote_name(field.column) for field in fields)
    with connections[node.alias].cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM {model._meta.db_table} ORDER BY id")
        return [
            tuple(
                json.dumps(json.loads(value), sort_keys=True)
                if isinstance(field, models.JSONField) and isinstance(value, str)
                else value
                for field, value in zip(fields, row, strict=True)
            )
            for row in cursor.fetchall()
        ]


def execute(node, statement, *values):
    with connections[node.alias].cursor() as cursor:
        cursor.execute(statement, values)


def reasons(node):
    with node.at_work():
        return [entry.reason for entry in DeferredEntry.objects.all()]


def update(node, model, **values):
    """Write columns past ``save()``, and let a scan find the change."""
    with node.at_work():
        models.QuerySet(model, using=node.alias).update(**values)
        scan(registry.of_model(model))


class TestAWilfulModel:
    def test_every_column_is_the_same_after_a_create_and_an_update(self, a, b):
        with a.at_work():
            row = Wilful.objects.create(name="Mug", colour=Colour.RED, loud="hey", details={"day": dt.date(2024, 2, 3)})
            Wilful.objects.create(name="Cup")
        push(a, b)
        assert table(a, Wilful) == table(b, Wilful)
        with a.at_work():
            row.refresh_from_db()
            row.name, row.colour = "Big mug", Colour.GREEN
            row.save()
        push(a, b)
        assert table(a, Wilful) == table(b, Wilful)
        assert table(b, Wilful)[0][:3] == ("Big mug", "big-mug", 2)
        assert level(a, b)

    def test_what_was_written_past_save_stays_past_save(self, a, b):
        with a.at_work():
            Wilful.objects.create(name="Mug", loud="hey")
        update(
            a,
            Wilful,
            slug="another",
            revision=70,
            secret="s",
            loud="quiet",
            modified=dt.datetime(2001, 1, 1, tzinfo=dt.UTC),
        )
        push(a, b)
        assert table(a, Wilful) == table(b, Wilful)
        assert table(b, Wilful)[0][1:4] == ("another", 70, "s")

    def test_a_receiver_that_updates_the_row(self, a, b):
        def index(sender, instance, using, **kwargs):
            Wilful.objects.using(using).filter(pk=instance.pk).update(search=f"{using} {instance.name}")

        post_save.connect(index, sender=Wilful)
        try:
            with a.at_work():
                Wilful.objects.create(name="Mug")
                scan(registry.of_model(Wilful))
            push(a, b)
        finally:
            post_save.disconnect(index, sender=Wilful)
        assert table(a, Wilful) == table(b, Wilful)
        assert "node0 Mug" in table(b, Wilful)[0]
        assert level(a, b)

    def test_a_save_that_fails_on_what_it_replaced_itself(self, a, b):
        """At the target the slug that save() makes is taken by another row; the received slug is free."""
        with b.at_work():
            models.QuerySet(Wilful, using=b.alias).bulk_create([Wilful(name="Other", slug="mug")])
        with a.at_work():
            Wilful.objects.create(name="Mug")
        update(a, Wilful, slug="mug-2")
        push(a, b)
        assert reasons(b) == []
        assert table(a, Wilful)[0] in table(b, Wilful)
        with a.at_work():
            Wilful.objects.update(revision=9)
            scan(registry.of_model(Wilful))
        push(a, b)
        assert reasons(b) == []
        assert table(a, Wilful)[0] in table(b, Wilful)

    def test_a_save_that_refuses_defers_the_entry(self, a, b, monkeypatch):
        with a.at_work():
            Wilful.objects.create(name="Mug")

        def refuse(self, *args, **kwargs):
            raise RuntimeError("the period is closed")

        monkeypatch.setattr(Wilful, "save", refuse)
        push(a, b)
        assert reasons(b) == ["RuntimeError: the period is closed"]

    def test_a_receiver_that_refuses_defers_the_entry(self, a, b):
        """Also of a model with an ``auto_now`` field, whose time the save has replaced before the receiver ran."""

        def refuse(sender, instance, using, **kwargs):
            if using == b.alias:
                raise RuntimeError("the period is closed")

        with a.at_work():
            Stamped.objects.create(name="x")
        post_save.connect(refuse, sender=Stamped)
        try:
            push(a, b)
        finally:
            post_save.disconnect(refuse, sender=Stamped)
        assert reasons(b) == ["RuntimeError: the period is closed"]
        assert table(b, Stamped) == []

    def test_save_and_receivers_can_ask_whether_a_change_is_applied(self, a, b):
        asked = []

        def ask(sender, instance, **kwargs):
            applying = sdata_sync.is_applying()
            asked.append(None if applying is None else (applying.kind, applying.peer))

        post_save.connect(ask, sender=Wilful)
        try:
            with a.at_work():
                Wilful.objects.create(name="Mug")
            push(a, b)
        finally:
            post_save.disconnect(ask, sender=Wilful)
        assert asked == [None, (registry.of_model(Wilful).name, a.alias)]
        assert sdata_sync.is_applying() is None


class TestWhatValidationRefuses:
    def test_is_written_as_it_is(self, a, b):
        with a.at_work():
            rows = [
                Loose(code="", size="xxl", payload={}, email="nobody"),
                Loose(code="x", size="", payload=[], note="", email="", path="/no/such/file", photo="gone.png"),
                Loose(code="y", size="s", payload="", note=None, email="y@"),
            ]
            for row in rows:
                row.save()
            Loose.objects.filter(pk=rows[0].pk).update(partner=rows[1])
            scan(registry.of_model(Loose))
        push(a, b)
        assert reasons(b) == []
        assert [row[:-1] for row in table(a, Loose)] == [row[:-1] for row in table(b, Loose)]
        with b.at_work():
            assert Loose.objects.get(code="").partner.code == "x"
        assert level(a, b)

    def test_is_deferred_if_the_resource_validates(self, a, b, monkeypatch):
        monkeypatch.setattr(sdata_sync.SyncResource, "validate", True)
        with a.at_work():
            Loose(code="x", size="xxl", email="nobody").save()
        push(a, b)
        [reason] = reasons(b)
        assert "email" in reason


JSON_TEXTS = ["null", "0", "false", '""', "[]", "{}", '"null"', '{"a": null}', "[1, 1.5, 1e100]", '"\\u0001\\u2028"']


class TestJson:
    @pytest.mark.parametrize("text", JSON_TEXTS)
    def test_each_shape(self, a, b, text):
        with a.at_work():
            Loose.objects.create(code="x", size="s", email="x")
            Loose.objects.create(code="sql null", size="s", email="x", answer=None)
        execute(a, "UPDATE shapes_loose SET answer = %s WHERE code = 'x'", text)
        with a.at_work():
            scan(registry.of_model(Loose))
        push(a, b)
        if connections[a.alias].vendor == "postgresql" and "\\u0001" in text:
            assert len(table(b, Loose)) == 2
        assert table(a, Loose) == table(b, Loose)
        assert level(a, b)

    def test_the_json_null_becomes_the_sql_null(self, a, b):
        with a.at_work():
            Loose.objects.create(code="x", size="s", email="x", answer=models.Value(None, models.JSONField()))
        push(a, b)
        assert table(b, Loose)[0][3] == "null"
        update(a, Loose, answer=None)
        push(a, b)
        assert table(b, Loose)[0][3] is None


class TestWhatTheDatabaseChanges:
    def test_a_trigger_that_alters_a_column(self, a, b):
        if connections[b.alias].vendor != "sqlite":
            pytest.skip("the trigger is written for SQLite")
        execute(
            b,
            "CREATE TRIGGER shout AFTER INSERT ON shapes_everyfield BEGIN"
            " UPDATE shapes_everyfield SET char = upper(char) WHERE id = new.id; END",
        )
        execute(
            b,
            "CREATE TRIGGER shout_again AFTER UPDATE ON shapes_everyfield BEGIN"
            " UPDATE shapes_everyfield SET char = 'bad' WHERE id = new.id AND char = 'forbidden'; END",
        )
        try:
            with a.at_work():
                EveryField.objects.create(char="quiet")
                EveryField.objects.create(char="forbidden")
            push(a, b)
            assert [row[0] for row in table(b, EveryField)] == ["quiet"]
            [reason] = reasons(b)
            assert reason == "The database cannot hold the value 'forbidden' of char; it holds 'bad'."
        finally:
            execute(b, "DROP TRIGGER shout")
            execute(b, "DROP TRIGGER shout_again")

    def test_a_number_with_more_digits_than_the_column(self, a, b):
        [everyfield] = [kind for kind in registry if kind.model is EveryField]
        assert everyfield.by_column["decimal"].read("1.50") is not None
        with pytest.raises(ValueError, match="at most 10 decimal places"):
            everyfield.by_column["decimal"].read("0.12345678901")


class Secret(models.Field):
    """A field of its own, which no codec is known for."""

    def db_type(self, connection):
        return "varchar(50)"


class Wrapped(models.TextField):
    """Is wrapped in a function of SQL when it is written."""

    def get_placeholder(self, value, compiler, connection):
        return "upper(%s)"


class TestCodecs:
    def problems(self, field):
        class Keeper(models.Model):
            secret = field

            class Meta:
                app_label = "shapes"
                managed = False

        try:
            with sdata_sync.registered(Keeper):
                return [message.id for message in check_resources(None) if message.obj is Keeper]
        finally:
            apps.all_models["shapes"].pop("keeper")
            apps.clear_cache()

    @pytest.mark.parametrize("field", [Secret, Wrapped])
    def test_a_field_without_an_exact_codec_is_a_check_error(self, field):
        assert "sdata_sync.E015" in self.problems(field())

    def test_a_registered_codec_is_used(self):
        sdata_sync.register_codec(Secret, sdata_sync.Codec(lambda value: value[::-1], lambda text: text[::-1]))
        try:
            assert self.problems(Secret()) == []
            assert self.problems(Wrapped()) == ["sdata_sync.E015"]
        finally:
            unregister_codec(Secret)

    @pytest.mark.parametrize(("field", "codec"), [("Secret", lambda field: None), (Secret, "no codec")])
    def test_what_is_no_codec_is_refused(self, field, codec):
        with pytest.raises(ImproperlyConfigured, match="register_codec"):
            sdata_sync.register_codec(field, codec)
