"""Which writes are captured at once, which by a scan: the table of docs/reference/capture.md."""

import pytest
from django.db import connections

import sdata_sync
from sdata_sync.models import DeferredEntry
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.scan import scan

from ..many_nodes import two_nodes
from ..shapes.models import Article, Author, Friend, Membership, Owner, Player, Tag, Team
from ..talk import level, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1"]),
    pytest.mark.xdist_group("capture matrix"),
]


class Articles(sdata_sync.SyncResource):
    fields = ["title", "author", "tags"]


class Teams(sdata_sync.SyncResource):
    fields = ["name", "players"]


class Friends(sdata_sync.SyncResource):
    fields = ["name", "friends"]


@pytest.fixture
def nodes(monkeypatch):
    with two_nodes(
        monkeypatch, Author, Tag, (Article, Articles), (Friend, Friends), Owner, Player, (Team, Teams)
    ) as nodes:
        yield nodes


def rows(node):
    """Return what the two nodes must have in common, without their keys."""
    with node.at_work():
        return {
            "articles": sorted(
                (a.title, a.author.name if a.author else None, sorted(t.name for t in a.tags.all()))
                for a in Article.objects.all()
            ),
            "teams": sorted((t.name, sorted(p.name for p in t.players.all())) for t in Team.objects.all()),
            "owners": sorted((o.name, o.above.name if o.above else None) for o in Owner.objects.all()),
            "authors": sorted(a.name for a in Author.objects.all()),
            "friends": sorted((f.name, sorted(o.name for o in f.friends.all())) for f in Friend.objects.all()),
        }


def reverse_add(bulk):
    Author.objects.get(name="Ann").articles.add(Article.objects.get(title="One"), bulk=bulk)


def reverse_set(bulk):
    Author.objects.get(name="Ann").articles.set([Article.objects.get(title="Two")], bulk=bulk)


def reverse_remove(bulk):
    Author.objects.get(name="Bob").articles.remove(Article.objects.get(title="Three"), bulk=bulk)


def through_row():
    article, tag = Article.objects.get(title="One"), Tag.objects.get(name="red")
    Article.tags.through.objects.create(article=article, tag=tag)


def through_delete():
    Article.tags.through.objects.filter(article__title="Three").delete()


def through_bulk():
    article, tag = Article.objects.get(title="One"), Tag.objects.get(name="red")
    Article.tags.through.objects.bulk_create([Article.tags.through(article=article, tag=tag)])


def raw_sql():
    with connections["node0"].cursor() as cursor:
        cursor.execute("UPDATE shapes_article SET title = 'Uno' WHERE title = 'One'")


def untracked_tree():
    """Two rows that no signal announced, of which the first refers to the second."""
    below, above = Owner(name="below"), Owner(name="above")
    Owner.objects.bulk_create([below, above])
    below, above = Owner.objects.get(name="below"), Owner.objects.get(name="above")
    Owner.objects.filter(pk=below.pk).update(above=above)


#: The write, and whether it is captured at once; all others are found by a scan.
WRITES = [
    ("reverse add(bulk=False)", lambda: reverse_add(bulk=False), True),
    ("reverse add()", lambda: reverse_add(bulk=True), False),
    ("reverse set(bulk=False)", lambda: reverse_set(bulk=False), True),
    ("reverse set()", lambda: reverse_set(bulk=True), False),
    ("reverse remove(bulk=False)", lambda: reverse_remove(bulk=False), True),
    ("reverse remove()", lambda: reverse_remove(bulk=True), False),
    ("many-to-many add()", lambda: Article.objects.get(title="One").tags.add(Tag.objects.get(name="red")), True),
    ("reverse many-to-many add()", lambda: Tag.objects.get(name="red").articles.add(Article.objects.get(title="One")), True),
    ("many-to-many set()", lambda: Article.objects.get(title="Three").tags.set([]), True),
    ("symmetrical many-to-many add()", lambda: Friend.objects.get(name="x").friends.add(Friend.objects.get(name="y")), True),
    ("symmetrical many-to-many clear()", lambda: Friend.objects.get(name="z").friends.clear(), True),
    ("create() of an automatic through model", through_row, False),
    ("delete() of automatic through rows", through_delete, False),
    ("bulk_create() of automatic through rows", through_bulk, False),
    ("create() of a through model", lambda: Membership.objects.create(team=Team.objects.get(), player=Player.objects.get(name="p")), True),
    ("delete() of a through row", lambda: Membership.objects.get().delete(), True),
    ("add() with a through model", lambda: Team.objects.get().players.add(Player.objects.get(name="p")), True),
    ("QuerySet.update()", lambda: Article.objects.filter(title="One").update(title="Uno"), False),
    ("QuerySet.delete()", lambda: Article.objects.filter(title="One").delete(), True),
    ("cascade", lambda: Author.objects.get(name="Bob").delete(), True),
    ("bulk_create()", lambda: Author.objects.bulk_create([Author(name="Cid")]), False),
    ("bulk_create() of rows that refer to each other", untracked_tree, False),
    ("raw SQL", raw_sql, False),
]  # fmt: skip


def test_add_with_a_through_model_that_is_registered(monkeypatch):
    class TeamNames(sdata_sync.SyncResource):
        fields = ("name",)

    with two_nodes(monkeypatch, Player, (Team, TeamNames), Membership) as (a, b):
        with a.at_work():
            team, players = Team.objects.create(name="team"), [Player.objects.create(name=name) for name in "pqr"]
        push(a, b)
        for write in (
            lambda: team.players.add(*players),
            lambda: team.players.remove(players[0]),
            lambda: players[0].teams.add(team),
            lambda: team.players.set(players[:2]),
            lambda: players[1].teams.clear(),
        ):
            with a.at_work():
                write()
            push(a, b)
            assert rows(a)["teams"] == rows(b)["teams"]
        assert level(a, b)


@pytest.mark.parametrize(("name", "write", "at_once"), WRITES, ids=[name for name, *_ in WRITES])
def test_it_arrives(nodes, name, write, at_once):
    a, b = nodes
    with a.at_work():
        Author.objects.create(name="Ann")
        bob, red = Author.objects.create(name="Bob"), Tag.objects.create(name="red")
        Article.objects.create(title="One")
        Article.objects.create(title="Two")
        Article.objects.create(title="Three", author=bob).tags.add(red)
        x, y, z = (Friend.objects.create(name=name) for name in "xyz")
        z.friends.add(x, y)
        team, q = Team.objects.create(name="team"), Player.objects.create(name="q")
        Player.objects.create(name="p")
        team.players.add(q)
    push(a, b)
    assert rows(a) == rows(b)
    with a.at_work():
        write()
    assert rows(a) != rows(b)
    push(a, b)
    assert (rows(a) == rows(b)) is at_once
    with a.at_work():
        for kind in registry:
            scan(kind)
    push(a, b)
    assert rows(a) == rows(b)
    with b.at_work():
        assert not DeferredEntry.objects.exists()
    assert level(a, b)
