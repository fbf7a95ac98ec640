"""Nodes with keys of their own, in one process, which share every model that leads somewhere."""

import os
from pathlib import Path

import pytest

import sdata_sync
from testproject.crm.models import Account, Contact, SalesOrder

from ..many_nodes import LocalNode, wired
from ..shapes.models import Article, Author, Part, Profile, Tag


class PartSync(sdata_sync.SyncResource):
    model = Part


class ArticleSync(sdata_sync.SyncResource):
    fields = ["title", "author", "editor", "country", "sequel_to", "tags", "about"]
    children = {"parts": PartSync}


def pytest_collection_modifyitems(config, items):
    """On a server leave out the tests whose nodes are databases in memory: they would do the same once more."""
    if "SDATA_SERVER" not in os.environ or "SDATA_NODES_ON" in os.environ:
        return
    here = Path(__file__).parent
    left_out = [item for item in items if item.path.is_relative_to(here) and "nodes" in item.fixturenames]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture
def nodes(monkeypatch):
    nodes = [LocalNode(number) for number in range(3)]
    with (
        wired(nodes, monkeypatch),
        sdata_sync.registered(Author),
        sdata_sync.registered(Tag),
        sdata_sync.registered(Profile),
        sdata_sync.registered(Article, ArticleSync),
    ):
        for node in nodes:
            node.settings["PAGE_SIZE"], node.settings["MAX_PAGE_SIZE"] = 10, 50
            node.reset([other for other in nodes if other is not node])
        yield nodes


@pytest.fixture
def a(nodes):
    """The first node. Its keys are not those of the second."""
    with nodes[0].at_work():
        for model in (Author, Tag, Article, Account, Contact, SalesOrder):
            if model in (Author, Tag):
                for _ in range(3):
                    model.objects.create(name="x").delete()
    return nodes[0]


@pytest.fixture
def b(nodes):
    return nodes[1]
