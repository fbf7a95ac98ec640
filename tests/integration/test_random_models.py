"""Random models with random histories at two nodes: equal columns, and nothing waits.

``SDATA_MODELS`` is the number of models; ``make test-long`` runs 2,000.
"""

import datetime as dt
import json
import os
import random
import uuid
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from itertools import count

import pytest
from django.apps import apps
from django.db import IntegrityError, connections, models, transaction

import sdata_sync
from sdata_sync.delivery.monitoring.status import collect_status
from sdata_sync.kind import all_rows
from sdata_sync.models import DeferredEntry
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.scan import scan

from ..many_nodes import LocalNode, wired
from ..shapes.models import Colour, ColourField, LoudField
from ..talk import pull, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"]),
    pytest.mark.xdist_group("random models"),
]

#: Models in one history.
TOGETHER = 3
HISTORIES = int(os.environ.get("SDATA_MODELS", "24")) // TOGETHER

TEXTS = ["", " ", "a", "ÄÖ ß", "x" * 20, "line\nline\r\n", "<&>\"'", "None", "null", "🙂", "\t", "0"]
MOMENTS = [
    dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=dt.UTC),
    dt.datetime(2024, 7, 1, 12, 0, 0, 1000, tzinfo=dt.UTC),
    dt.datetime(9999, 12, 31, tzinfo=dt.UTC),
]
JSON = [None, 0, "", [], {}, {"b": [1, 2.5], "a": None}, "null", [[]], True, "🙂"]

#: Each field: how it is made, and the values that its column may have besides null.
FIELDS = {
    "char": (lambda **o: models.CharField(max_length=20, **o), TEXTS),
    "text": (lambda **o: models.TextField(**o), [*TEXTS, "long " * 2000]),
    "choice": (lambda **o: models.CharField(max_length=20, choices=[("a", "A")], **o), TEXTS),
    "email": (lambda **o: models.EmailField(**o), ["", "nobody", "a@b.example"]),
    "integer": (lambda **o: models.IntegerField(**o), [0, 1, -1, 2**31 - 1, -(2**31)]),
    "big": (lambda **o: models.BigIntegerField(**o), [0, 2**63 - 1, -(2**63)]),
    "small": (lambda **o: models.SmallIntegerField(**o), [0, -32768, 32767]),
    "boolean": (lambda **o: models.BooleanField(**o), [True, False]),
    "decimal": (
        lambda **o: models.DecimalField(max_digits=12, decimal_places=3, **o),
        [Decimal(0), Decimal("0.001"), Decimal("-999999999.999"), Decimal("2.50")],
    ),
    "whole": (lambda **o: models.DecimalField(max_digits=9, decimal_places=0, **o), [Decimal(0), Decimal(999999999)]),
    "float": (lambda **o: models.FloatField(**o), [0.0, 0.1, -1e-300, 1.7976931348623157e308, 1 / 3]),
    "date": (lambda **o: models.DateField(**o), [dt.date(1, 1, 1), dt.date(2024, 2, 29), dt.date(9999, 12, 31)]),
    "moment": (lambda **o: models.DateTimeField(**o), MOMENTS),
    "time": (lambda **o: models.TimeField(**o), [dt.time(0), dt.time(23, 59, 59, 999_999)]),
    "duration": (lambda **o: models.DurationField(**o), [dt.timedelta(), dt.timedelta(days=-3, microseconds=7)]),
    "uuid": (lambda **o: models.UUIDField(**o), [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)]),
    "json": (lambda **o: models.JSONField(**o), [value for value in JSON if value is not None]),
    "binary": (lambda **o: models.BinaryField(**o), [b"", b"\x00\xff", b"text"]),
    "ip": (lambda **o: models.GenericIPAddressField(**o), ["192.0.2.1", "2001:db8::1"]),
    "file": (lambda **o: models.FileField(**o), ["", "a/b c.pdf"]),
    "colour": (lambda **o: ColourField(max_length=1, **o), [Colour.RED, Colour.GREEN]),
    "loud": (lambda **o: LoudField(max_length=20, **o), TEXTS),
}
KEYS = {
    "auto": (lambda: models.BigAutoField(primary_key=True), None),
    "text": (lambda: models.CharField(max_length=30, primary_key=True), lambda n: f"Key/{n} 'ü'"),
    "number": (lambda: models.IntegerField(primary_key=True), lambda n: n),
    "uuid": (lambda: models.UUIDField(primary_key=True, default=uuid.uuid4), lambda n: uuid.uuid4()),
    "decimal": (
        lambda: models.DecimalField(max_digits=9, decimal_places=2, primary_key=True),
        lambda n: Decimal(n).scaleb(-1),
    ),
    "composite": (lambda: models.CompositePrimaryKey("part", "number"), lambda n: (f"part '{n % 3}'", n)),
}


def _rewriting_save(self, *args, **kwargs):
    """Replace values, as slugs, counters and modification times are replaced."""
    self.edits = (self.edits or 0) + 1
    if hasattr(self, "char"):
        self.char = (self.char or "")[:18].title()
    models.Model.save(self, *args, **kwargs)


def random_model(chance, number, others):
    """Return a model with a random key, random fields, references and ``save()``; or one that extends another model."""
    others = [other for other in others if not other.extended and other.key_kind != "composite"]
    if others and chance.random() < 0.25:
        return extending_model(chance, number, chance.choice(others))
    key = chance.choice(list(KEYS))
    attributes = {
        "__module__": "tests.shapes.models",
        "Meta": type("Meta", (), {"app_label": "shapes"}),
        "id": KEYS[key][0](),
        "marker": models.CharField(max_length=20),
        "edits": models.IntegerField(default=0),
        **random_fields(chance),
        **random_relations(chance, others, is_referable=key != "composite"),
    }
    if key == "composite":
        attributes["part"], attributes["number"] = models.CharField(max_length=20), models.IntegerField()
    if chance.random() < 0.3:
        attributes["save"] = _rewriting_save
    if chance.random() < 0.2:
        attributes["objects"] = type("Hiding", (models.Manager,), {"get_queryset": lambda self: models.QuerySet(self.model, using=self._db).exclude(edits=3)})()  # fmt: skip
    model = type(f"Random{number}", (models.Model,), attributes)
    model.key_kind, model.extended = key, None
    return model


def random_fields(chance):
    fields = {}
    for name in chance.sample(list(FIELDS), chance.randint(2, 7)):
        is_nullable = chance.random() < 0.6
        options = {"null": True} if is_nullable else {"default": FIELDS[name][1][0]}
        fields[name] = FIELDS[name][0](**options)
    if chance.random() < 0.3:
        fields["changed"] = models.DateTimeField(auto_now=True)
    if chance.random() < 0.3:
        fields["created"] = models.DateTimeField(auto_now_add=True)
    return fields


def random_relations(chance, others, *, is_referable):
    """Return references and associations; a model that no row may refer to has none to itself, and no associations."""
    relations = {}
    if others and chance.random() < 0.5:
        relations["other"] = models.ForeignKey(chance.choice(others), models.SET_NULL, null=True, related_name="+")
    if not is_referable:
        return relations
    if chance.random() < 0.3:
        relations["above"] = models.ForeignKey("self", models.SET_NULL, null=True, related_name="+")
    for name, symmetrical in (("friends", True), ("sees", False)):
        if chance.random() < 0.2:
            relations[name] = models.ManyToManyField("self", symmetrical=symmetrical, related_name="+")
    if others and chance.random() < 0.3:
        relations["members"] = models.ManyToManyField(chance.choice(others), related_name="+")
    return relations


def extending_model(chance, number, base):
    """Return a model that extends ``base`` in multi-table inheritance: both are registered."""
    attributes = {"__module__": "tests.shapes.models", "Meta": type("Meta", (), {"app_label": "shapes"})}
    own = [name for name in FIELDS if name not in {field.name for field in base._meta.concrete_fields}]
    for name in chance.sample(own, chance.randint(1, 3)):
        attributes[name] = FIELDS[name][0](null=True)
    model = type(f"Random{number}", (base,), attributes)
    model.key_kind, model.extended = base.key_kind, base
    return model


class History:
    """Random writes at two nodes."""

    def __init__(self, seed, nodes, made):
        self.chance, self.nodes, self.models = random.Random(seed), nodes, made
        self.numbers = count(1)

    def values(self, model, node):
        found = {}
        for field in model._meta.concrete_fields:
            if field.name in FIELDS and self.chance.random() < 0.7:
                choices = [*FIELDS[field.name][1], *([None] if field.null else [])]
                found[field.name] = self.chance.choice(choices)
            elif field.is_relation and not getattr(field.remote_field, "parent_link", False):
                rows = list(all_rows(field.related_model, node.alias)[:10])
                found[field.name] = self.chance.choice([None, *rows])
        return found

    def step(self):
        node, model = self.chance.choice(self.nodes), self.chance.choice(self.models)
        with node.at_work():
            rows = list(all_rows(model, node.alias).order_by("pk"))
            action = self.chance.choice(["create", "create", "save", "save", "update", "bulk", "link", "delete"])
            if model.extended and action == "bulk":
                action = "create"  # Django has no bulk_create() for several tables
            number = next(self.numbers)
            if action in ("create", "bulk") or not rows:
                key = KEYS[model.key_kind][1]
                values = {**self.values(model, node), "marker": f"{node.alias} {number}"}
                row = model(**values) if key is None else model(pk=key(number), **values)
                if action == "bulk":
                    models.QuerySet(model, using=node.alias).bulk_create([row])
                else:
                    row.save(using=node.alias)
                return
            row = self.chance.choice(rows)
            if action == "link":
                for field in model._meta.many_to_many:
                    candidates = list(all_rows(field.related_model, node.alias)[:10])
                    getattr(row, field.name).set(
                        self.chance.sample(candidates, self.chance.randint(0, len(candidates)))
                    )
            elif action == "delete":
                row.delete()
            elif action == "update":
                values = self.values(model, node)
                all_rows(model, node.alias).filter(pk=row.pk).update(**values, edits=7)
            else:
                for name, value in self.values(model, node).items():
                    setattr(row, name, value)
                row.save()

    def run(self, steps):
        for number in range(steps):
            try:
                with transaction.atomic(using="node0"), transaction.atomic(using="node1"):
                    self.step()
            except IntegrityError:
                pass  # the write itself was refused
            if number % 7 == 6:
                push(*self.chance.sample(self.nodes, 2))
        for _ in range(3):
            for node in self.nodes:
                with node.at_work():
                    for kind in registry:
                        scan(kind)
            push(*self.nodes)
            push(*reversed(self.nodes))


def table(node, model):
    """Return the rows by plain SQL, a reference as the marker of its target, without keys that the database makes."""
    quote = connections[node.alias].ops.quote_name
    parts, joins, jsons = [], [], []
    for field in model._meta.local_concrete_fields:
        column = f"t.{quote(field.column)}"
        if field.is_relation:
            alias = f"j{len(joins)}"
            target = field.related_model._meta
            joins.append(f"LEFT JOIN {quote(target.db_table)} {alias} ON {column} = {alias}.{quote('id')}")
            column = f"{alias}.marker"
        elif field.primary_key and model.key_kind == "auto":
            continue
        parts.append(column)
        jsons.append(isinstance(field, models.JSONField))
    with connections[node.alias].cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(parts)} FROM {quote(model._meta.db_table)} t {' '.join(joins)}")
        found = cursor.fetchall()
    # The order of the keys of a JSON object is no part of its value.
    rows = [
        tuple(
            json.dumps(json.loads(value), sort_keys=True) if is_json and isinstance(value, str) else value
            for is_json, value in zip(jsons, row, strict=True)
        )
        for row in found
    ]
    return sorted(rows, key=repr)


def links(node, field):
    """Return the pairs of a many-to-many field, by the markers of both rows."""
    ends = (field.m2m_field_name(), field.m2m_reverse_field_name())
    pairs = all_rows(field.remote_field.through, node.alias)
    return sorted(pairs.values_list(*(f"{end}__marker" for end in ends)))


class Everything(sdata_sync.SyncResource):
    """All columns, and the many-to-many fields."""

    def __init__(self, model):
        super().__init__(model)
        own = [
            field for field in model._meta.local_concrete_fields if not getattr(field.remote_field, "parent_link", 0)
        ]
        sent = [field.name for field in own if not isinstance(field, models.AutoField)]
        self.fields = [*sent, *(field.name for field in model._meta.local_many_to_many)]


def describe(model):
    return {field.name: field.deconstruct()[1:] for field in model._meta.concrete_fields}


@contextmanager
def shared(made, nodes, monkeypatch):
    """Create the tables of the models ``made`` at the nodes, and register the models, until the block ends."""
    with wired(nodes, monkeypatch), ExitStack() as stack:
        for node in nodes:
            node.reset([other for other in nodes if other is not node])  # before there are tables to empty
        stack.callback(_forget, made)
        for node in nodes:
            with connections[node.alias].schema_editor() as editor:
                for model in made:
                    editor.create_model(model)
            stack.callback(_drop, made, connections[node.alias])
        for model in made:
            stack.enter_context(sdata_sync.registered(model, Everything))
        yield


def _drop(made, connection):
    with connection.constraint_checks_disabled(), connection.schema_editor() as editor:
        for model in reversed(made):
            editor.delete_model(model)


def _forget(made):
    for model in made:
        apps.all_models["shapes"].pop(model._meta.model_name, None)
    apps.clear_cache()


def what_is_said(nodes):
    """Return what either node says of differences: deferred entries, what waits, what cannot be sent."""
    said = []
    for node in nodes:
        with node.at_work():
            said += [entry.reason for entry in DeferredEntry.objects.all()]
            status = collect_status(node.base_url)
            said += [stream.reason for kind in status.kinds for stream in kind.streams if stream.reason]
            said += [kind.kind for kind in status.kinds if kind.held_back or kind.unnumbered]
    return said


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_equal_columns(seed, monkeypatch):
    chance, made = random.Random(f"models {seed}"), []
    for number in range(TOGETHER):
        made.append(random_model(chance, seed * TOGETHER + number, made))
    nodes = [LocalNode(number) for number in range(2)]
    with shared(made, nodes, monkeypatch):
        History(seed, nodes, made).run(40)
        for here, there in (nodes, nodes[::-1]):
            pull(here, there)  # each node is told once more what waits at the other
        said = what_is_said(nodes)
        if any("would also delete rows that its source still has" in text for text in said):
            return  # a row was extended at one node and deleted at the other: it is named, and left to a user
        assert said == []
        for model in made:
            here, there = (table(node, model) for node in nodes)
            assert here == there, describe(model)
            for field in model._meta.local_many_to_many:
                assert links(nodes[0], field) == links(nodes[1], field), (field.name, describe(model))
