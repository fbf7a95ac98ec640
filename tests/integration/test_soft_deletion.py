"""Models that hide rows in place of deleting them: the flag is a column, and a row that is gone is gone everywhere."""

import pytest
from django.db import models

from sdata_sync.models import DeferredEntry
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.scan import scan

from ..databases import declared
from ..many_nodes import two_nodes
from ..talk import level, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"]),
    pytest.mark.xdist_group("soft deletion"),
]


class Visible(models.Manager):
    def get_queryset(self):
        return super().get_queryset().filter(is_hidden=False)


def sheet_model(base_manager, *, has_own_save=False):
    class Sheet(models.Model):
        title = models.CharField(max_length=20)
        is_hidden = models.BooleanField(default=False)
        objects = Visible()

        class Meta:
            app_label = "shapes"
            base_manager_name = base_manager

        if has_own_save:

            def save(self, *args, **kwargs):
                """Have rows written one by one."""
                super().save(*args, **kwargs)

        def delete(self, *args, **kwargs):
            """Hide the row, past all signals."""
            every(type(self)).filter(pk=self.pk).update(is_hidden=True)
            return 0, {}

    return Sheet


def every(model):
    return models.QuerySet(model)


@pytest.fixture(
    params=[(None, False), ("objects", False), ("objects", True)],
    ids=["default manager hides", "base manager hides", "base manager hides from save()"],
)
def sheet(request):
    base_manager, has_own_save = request.param
    model = sheet_model(base_manager, has_own_save=has_own_save)
    with declared(model, using=["node0", "node1"]):
        yield model


@pytest.fixture
def nodes(monkeypatch, sheet):
    with two_nodes(monkeypatch, sheet) as nodes:
        yield nodes


def exchange(a, b, model):
    for node in (a, b):
        with node.at_work():
            scan(registry.of_model(model))
    for _ in range(2):
        push(a, b)
        push(b, a)


def rows(node, model):
    with node.at_work():
        assert not DeferredEntry.objects.exists(), [entry.reason for entry in DeferredEntry.objects.all()]
        return sorted(every(model).values_list("title", "is_hidden"))


def test_a_hidden_row_is_hidden_at_both_nodes_and_can_come_back(a, b, sheet):
    with a.at_work():
        sheet.objects.create(title="one").delete()
        sheet.objects.create(title="two")
    exchange(a, b, sheet)
    assert rows(a, sheet) == rows(b, sheet) == [("one", True), ("two", False)]
    with b.at_work():
        every(sheet).filter(title="one").update(title="edited while hidden")
    exchange(a, b, sheet)
    assert rows(a, sheet) == rows(b, sheet) == [("edited while hidden", True), ("two", False)]
    with a.at_work():
        every(sheet).filter(is_hidden=True).update(is_hidden=False, title="back")
    exchange(a, b, sheet)
    assert rows(a, sheet) == rows(b, sheet) == [("back", False), ("two", False)]
    assert level(a, b)


@pytest.mark.parametrize("is_hidden", [True, False])
def test_a_row_that_was_deleted_for_good_does_not_come_back(a, b, sheet, is_hidden):
    with a.at_work():
        for title in ("one", "two"):
            sheet.objects.create(title=title, is_hidden=is_hidden)
    exchange(a, b, sheet)
    with a.at_work():
        models.Model.delete(every(sheet).get(title="one"))
    exchange(a, b, sheet)
    for _ in range(2):
        exchange(a, b, sheet)
    assert rows(a, sheet) == rows(b, sheet) == [("two", is_hidden)]
    with b.at_work():
        every(sheet).all().delete()
    exchange(a, b, sheet)
    assert rows(a, sheet) == rows(b, sheet) == []
    assert level(a, b)
