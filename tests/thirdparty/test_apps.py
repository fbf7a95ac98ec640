"""Real third-party apps: their models are registered with defaults, written by their own APIs, and compared with SQL."""

import pytest
import reversion
from django.contrib.auth.models import Group, Permission, User
from django.core.checks import Error
from django.db import connections
from djmoney.money import Money
from guardian.models import UserObjectPermission
from guardian.shortcuts import assign_perm
from reversion.models import Revision, Version
from taggit.models import Tag, TaggedItem
from wagtail.models import Locale, Page

import sdata_sync
from sdata_sync.checks import check_resources
from sdata_sync.models import DeferredEntry
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.scan import scan

from ..many_nodes import two_nodes
from ..talk import level, pull, push
from . import models as m

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"]),
    pytest.mark.xdist_group("thirdparty"),
]


@pytest.fixture
def a(nodes):
    return nodes[0]


@pytest.fixture
def b(nodes):
    return nodes[1]


@pytest.fixture
def nodes(monkeypatch, request):
    """Two nodes with the models of the test's marker ``models`` registered, each with defaults or a declaration."""
    with two_nodes(monkeypatch, *request.node.get_closest_marker("models").args[0]) as nodes:
        yield nodes


def table(node, model, without=()):
    """Return the rows of a table by plain SQL, without the columns that differ between nodes by design."""
    fields = [f for f in model._meta.local_concrete_fields if f.name not in without]
    quote = connections[node.alias].ops.quote_name
    with connections[node.alias].cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(quote(f.column) for f in fields)} FROM {quote(model._meta.db_table)}")
        return sorted(cursor.fetchall(), key=repr)


def exchange(a, b):
    for _ in range(3):
        push(a, b)
        push(b, a)


def scan_and_exchange(a, b):
    """treebeard changes the other nodes of a tree by SQL and ``update()``, which only a scan finds."""
    for node in (a, b):
        with node.at_work():
            for kind in registry:
                scan(kind)
    exchange(a, b)


def assert_equal(a, b, *tables):
    """``tables`` are models, or pairs of a model and the names of its columns that are not compared."""
    for node in (a, b):
        with node.at_work():
            assert [entry.reason for entry in DeferredEntry.objects.all()] == []
    for model in tables:
        model, without = model if isinstance(model, tuple) else (model, ())
        assert table(a, model, without) == table(b, model, without), model.__name__
    assert level(a, b)


def test_what_check_refuses(request):
    """Only with the models of this file: those that are refused are named in the documentation."""
    refused = {}
    for model in (m.Genre, m.Category, m.Section, m.Shelf, m.Poll, m.Note, m.Price, m.Food, m.Project, m.Translated,
                  m.Tracked, m.Person, Tag):  # fmt: skip
        with sdata_sync.registered(model):
            found = [item for item in check_resources(None) if item.obj is model and isinstance(item, Error)]
            if found:
                refused[model.__name__] = [item.msg for item in found]
    assert refused == {}
    with sdata_sync.registered(Group):  # it decides about rights, so its fields have to be named
        found = [item.id for item in check_resources(None) if item.obj is Group and isinstance(item, Error)]
        assert found == ["sdata_sync.E031"]


@pytest.mark.models([m.Price])
def test_django_money(a, b):
    with a.at_work():
        m.Price.objects.create(amount=Money("10.25", "USD"), rebate=None)
        m.Price.objects.create(amount=Money("0.10", "EUR"), rebate=Money("1", "JPY"))
    with b.at_work():
        m.Price.objects.create(amount=Money("99999999999.99", "GBP"))
    exchange(a, b)
    assert_equal(a, b, (m.Price, ["id"]))
    with b.at_work():
        price = m.Price.objects.get(amount=Money("10.25", "USD"))
        price.amount += Money("1", "USD")
        price.save()
    exchange(a, b)
    assert_equal(a, b, (m.Price, ["id"]))
    with a.at_work():
        assert m.Price.objects.filter(amount=Money("11.25", "USD")).exists()


@pytest.mark.models([m.Person])
def test_phone_numbers_and_countries(a, b):
    with a.at_work():
        m.Person.objects.create(phone="020 7946 0018", mobile="+447400123456", country="DE", countries=["FR", "GB"])
        m.Person.objects.create(phone="", mobile=None, country="", countries=[])
        m.Person.objects.create(phone="no number", mobile="+4930123456", country="XX")
    exchange(a, b)
    assert_equal(a, b, (m.Person, ["id"]))


@pytest.mark.models([m.Tracked])
def test_model_utils(a, b):
    with a.at_work():
        row = m.Tracked.objects.create(name="one")
        m.Tracked.objects.create(name="two").delete()
    exchange(a, b)
    assert_equal(a, b, (m.Tracked, ["id"]))
    with a.at_work():
        row.status = m.Tracked.STATUS.published
        row.save()
    exchange(a, b)
    assert_equal(a, b, (m.Tracked, ["id"]))
    with b.at_work():
        m.Tracked.available_objects.get(name="one").delete()
    exchange(a, b)
    assert_equal(a, b, (m.Tracked, ["id"]))


@pytest.mark.models([m.Poll])
def test_simple_history(a, b):
    with a.at_work():
        poll = m.Poll.objects.create(question="One?")
        poll.question = "Two?"
        poll.save()
    with b.at_work():
        m.Poll.objects.create(question="Three?")
    exchange(a, b)
    assert_equal(a, b, (m.Poll, ["id"]))
    with a.at_work():
        poll = m.Poll.objects.get(question="Three?")
        poll.question = "Four?"
        poll.save()
    exchange(a, b)
    for node in (a, b):
        with node.at_work():
            texts = [row.question for row in m.Poll.history.all()]
            assert (texts.count("Three?"), texts.count("Four?")) == (1, 1)


@pytest.mark.models([m.Note, Revision, Version])
def test_reversion(a, b):
    with a.at_work(), reversion.create_revision(using=a.alias):
        m.Note.objects.create(text="first")
    exchange(a, b)
    assert_equal(a, b, (m.Note, ["id"]))


@pytest.mark.models([Tag, TaggedItem, m.Food])
def test_taggit(a, b):
    with a.at_work():
        apple = m.Food.objects.create(name="apple")
        apple.tags.add("red", "sweet")
    with b.at_work():
        m.Food.objects.create(name="pear").tags.add("green")
    exchange(a, b)
    assert_equal(a, b, (Tag, ["id"]), (m.Food, ["id"]))
    with b.at_work():
        assert sorted(m.Food.objects.get(name="apple").tags.names()) == ["red", "sweet"]
        m.Food.objects.get(name="apple").tags.remove("sweet")
    exchange(a, b)
    assert_equal(a, b, (Tag, ["id"]), (m.Food, ["id"]))
    with a.at_work():
        assert list(m.Food.objects.get(name="apple").tags.names()) == ["red"]


@pytest.mark.models([m.ArtProject])
def test_polymorphic(a, b):
    with a.at_work():
        m.ArtProject.objects.create(topic="Painting", artist="T. Turner")
    exchange(a, b)
    with b.at_work():
        [project] = m.Project.objects.all()
        assert (type(project), project.artist) == (m.ArtProject, "T. Turner")
    assert level(a, b)


@pytest.mark.models([m.Project, m.ArtProject])
def test_polymorphic_with_its_base(a, b):
    with a.at_work():
        m.Project.objects.create(topic="Plain")
        m.ArtProject.objects.create(topic="Painting", artist="T. Turner")
    exchange(a, b)
    assert_equal(a, b, (m.Project, ["id", "polymorphic_ctype"]), (m.ArtProject, ["project_ptr"]))
    with b.at_work():
        assert {type(project) for project in m.Project.objects.all()} == {m.Project, m.ArtProject}
        art = m.ArtProject.objects.get()
        art.topic, art.artist = "Drawing", "A. Menzel"
        art.save()
        m.Project.objects.get(topic="Plain").delete()
    exchange(a, b)
    assert_equal(a, b, (m.Project, ["id", "polymorphic_ctype"]), (m.ArtProject, ["project_ptr"]))
    with a.at_work():
        assert [(project.topic, project.artist) for project in m.Project.objects.all()] == [("Drawing", "A. Menzel")]


@pytest.mark.models([m.Translated, m.Translated._parler_meta.root_model])
def test_parler(a, b):
    with a.at_work():
        row = m.Translated.objects.create(code="x", title="English")
        row.set_current_language("de")
        row.title = "Deutsch"
        row.save()
    exchange(a, b)
    assert_equal(a, b, (m.Translated, ["id"]))
    with b.at_work():
        [row] = m.Translated.objects.all()
        assert {row.safe_translation_getter("title", language_code=code) for code in ("en", "de")} == {
            "English",
            "Deutsch",
        }


class Users(sdata_sync.SyncResource):
    fields = [
        *("username", "password", "first_name", "last_name", "email", "is_staff", "is_active", "is_superuser"),
        *("date_joined", "groups", "user_permissions"),
    ]


class Groups(sdata_sync.SyncResource):
    fields = ["name", "permissions"]


@pytest.mark.models([(Group, Groups), (User, Users), UserObjectPermission])
def test_users_groups_and_guardian(a, b):
    with a.at_work():
        clerks = Group.objects.create(name="clerks")
        clerks.permissions.set(Permission.objects.filter(codename__endswith="_user"))
        user = User.objects.create_user("ann", "ann@example.com", "secret")
        user.groups.add(clerks)
        user.user_permissions.add(Permission.objects.get(codename="view_group"))
        assign_perm("auth.change_user", user, user)
    exchange(a, b)
    with b.at_work():
        clerks = Group.objects.get(name="clerks")
        assert set(clerks.permissions.values_list("codename", flat=True)) == {
            "add_user", "change_user", "delete_user", "view_user",
        }  # fmt: skip
        ann = User.objects.get(username="ann")
        assert ann.check_password("secret")
        assert UserObjectPermission.objects.get().object_pk == str(ann.pk)
        assert ann.groups.get() == clerks
        assert ann.has_perm("auth.delete_user")
        assert ann.has_perm("auth.view_group")
        ann.user_permissions.clear()
        clerks.permissions.remove(Permission.objects.get(codename="delete_user"))
    exchange(a, b)
    with a.at_work():
        ann = User.objects.get(username="ann")
        assert ann.get_all_permissions() == {"auth.add_user", "auth.change_user", "auth.view_user"}
    assert registry.of_model(User) is not None
    assert level(a, b)


@pytest.mark.models([m.Genre])
def test_mptt(a, b):
    with a.at_work():
        root = m.Genre.objects.create(name="Action")
        m.Genre.objects.create(name="Hero", parent=root)
        m.Genre.objects.create(name="Animated", parent=root)
    exchange(a, b)
    with b.at_work():
        assert [(g.name, g.level) for g in m.Genre.objects.all()] == [("Action", 0), ("Animated", 1), ("Hero", 1)]
    assert_equal(a, b, (m.Genre, ["id", "parent"]))


TREE = ["lft", "rght", "tree_id", "level"]


class Genres(sdata_sync.SyncResource):
    exclude = TREE


@pytest.mark.models([(m.Genre, Genres)])
def test_mptt_with_trees_of_both_nodes(a, b):
    for node, name in ((a, "Action"), (b, "Drama")):
        with node.at_work():
            root = m.Genre.objects.create(name=name)
            m.Genre.objects.create(name=f"{name} child", parent=root)
    exchange(a, b)
    assert_equal(a, b, (m.Genre, ["id", "parent", *TREE]))
    for node in (a, b):
        with node.at_work():
            m.Genre.objects.rebuild()
            assert [(genre.name, genre.level) for genre in m.Genre.objects.all()] == [
                ("Action", 0),
                ("Action child", 1),
                ("Drama", 0),
                ("Drama child", 1),
            ]


@pytest.mark.models([(m.Genre, Genres)])
def test_mptt_a_circle_made_from_both_sides_is_deferred_with_the_reason(a, b):
    with a.at_work():
        m.Genre.objects.create(name="x")
        m.Genre.objects.create(name="y")
    exchange(a, b)
    for node, child, parent in ((a, "x", "y"), (b, "y", "x")):
        with node.at_work():
            genre = m.Genre.objects.get(name=child)
            genre.parent = m.Genre.objects.get(name=parent)
            genre.save()
    exchange(a, b)
    for node in (a, b):
        with node.at_work():
            [entry] = DeferredEntry.objects.all()
            assert entry.reason == "InvalidMove: A node may not be made a child of any of its descendants."
    with a.at_work():  # a user resolves it
        genre = m.Genre.objects.get(name="x")
        genre.parent = None
        genre.save()
    exchange(a, b)
    pull(a, b)  # as the heartbeat does: deferred entries are retried
    exchange(a, b)
    assert_equal(a, b, (m.Genre, ["id", "parent", "lft", "rght", "tree_id", "level"]))


@pytest.mark.models([m.Category])
def test_treebeard_materialized_path(a, b):
    with a.at_work():
        root = m.Category.add_root(name="Root")
        root.add_child(name="B")
        m.Category.objects.get(name="Root").add_child(name="A")
    exchange(a, b)
    assert_equal(a, b, (m.Category, ["id"]))
    with b.at_work():
        assert [c.name for c in m.Category.get_tree()] == ["Root", "A", "B"]


@pytest.mark.models([m.Category])
def test_treebeard_two_trees_with_the_same_path(a, b):
    """The path is unique, and each node gives the first one to its own root: the entry that comes second waits."""
    for node, name in ((a, "Here"), (b, "There")):
        with node.at_work():
            m.Category.add_root(name=name)
    exchange(a, b)
    for node in (a, b):
        with node.at_work():
            [entry] = DeferredEntry.objects.all()
            assert entry.reason == "path: Category with this Path already exists."


@pytest.mark.models([m.Section])
def test_treebeard_nested_sets(a, b):
    with a.at_work():
        m.Section.add_root(name="Root").add_child(name="A")
    exchange(a, b)
    assert_equal(a, b, (m.Section, ["id"]))


@pytest.mark.models([m.Shelf])
def test_treebeard_adjacency_list(a, b):
    with a.at_work():
        m.Shelf.add_root(name="Root", sib_order=1).add_child(name="A", sib_order=1)
    exchange(a, b)
    assert_equal(a, b, (m.Shelf, ["id", "parent"]))


class Pages(sdata_sync.SyncResource):
    exclude = [
        "owner", "locked_by", "latest_revision", "live_revision", "alias_of",
    ]  # fmt: skip
    on_duplicate = "link"


class Locales(sdata_sync.SyncResource):
    on_duplicate = "link"


@pytest.mark.models([(Locale, Locales), (Page, Pages)])
def test_the_page_tree_of_wagtail(a, b):
    """Wagtail's migrations create the locale and the root at each node: they are linked."""
    for node in (a, b):
        with node.at_work():  # a test before this one may have emptied the tables
            locale, _ = Locale.objects.get_or_create(language_code="en")
            if not Page.objects.exists():
                Page.add_root(title="Root", slug="root", locale=locale)
    scan_and_exchange(a, b)
    with a.at_work():
        home = Page.objects.get(slug="root").add_child(instance=Page(title="Home", slug="our-home"))
        home.add_child(instance=Page(title="About", slug="about"))
    scan_and_exchange(a, b)
    with b.at_work():
        about = Page.objects.get(slug="about")
        assert [page.title for page in about.get_ancestors(inclusive=True)] == ["Root", "Home", "About"]
        about.title = "About us"
        about.save()
    scan_and_exchange(a, b)
    assert_equal(a, b, (Page, ["id", "owner", "locked_by", "latest_revision", "live_revision", "alias_of", "locale"]))
