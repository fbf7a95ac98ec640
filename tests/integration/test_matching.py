"""Rows that two nodes had before they met: matched, reviewed, linked; by command and in the admin."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

import sdata_sync
from sdata_sync.models import Peer, TrackedResource
from testproject.crm.models import Account, Contact

from ..shapes.models import Author, Stamped
from ..talk import level, pull, push

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "node0", "node1", "node2"]),
    pytest.mark.xdist_group("matching"),
]


def run(node, *arguments):
    out = StringIO()
    with node.at_work():
        call_command(*arguments, "--json", stdout=out, stderr=StringIO())
    return json.loads(out.getvalue())


def fill(node, **emails):
    with node.at_work():
        Account.objects.bulk_create(Account(name=name, email=email) for name, email in emails.items())


LINK = ["sync_link", "--peer", "node1", "--kind", "accounts"]


def test_how_sure_it_is(a, b):
    fill(a, exact="1@x.de", cased="2@X.de", twin1="3@x.de", twin2="3@x.de", alone="4@x.de", nothing="")
    fill(b, exact="1@x.de", cased="2@x.de", twin="3@x.de", other="5@x.de", nothing="")
    found = run(a, *LINK)
    assert {c["local"].split(",")[0]: c["certainty"] for c in found["candidates"]} == {
        "exact": "certain",
        "cased": "likely",
        "twin1": "ambiguous",
        "twin2": "ambiguous",
    }
    with a.at_work():
        assert not TrackedResource.objects.filter(kind="accounts").exists()


@pytest.mark.parametrize("wins", ["here", "there"])
def test_whose_content_stays(a, b, wins):
    fill(a, here="1@x.de", mine="2@x.de")
    fill(b, there="1@x.de", theirs="3@x.de")
    found = run(a, *LINK, "--certain", "--wins", wins)
    assert (found["linked"], found["refused"]) == (1, [])
    pull(a, b)
    push(a, b)
    for node in (a, b):
        with node.at_work():
            assert {row.name for row in Account.objects.all()} == {wins, "mine", "theirs"}
    assert level(a, b)
    assert run(a, *LINK)["candidates"] == []


def test_rows_that_others_know_already_keep_their_old_names_as_aliases(nodes, a, b):
    """The third case of SData sync 1.2: each was linked with somebody else before."""
    c = nodes[2]
    with c.at_work():
        account = Account.objects.create(name="at c", email="1@x.de")
        Contact.objects.create(account=account, last_name="Doe")
    push(c, a)
    with b.at_work():
        Account.objects.create(name="at b", email="1@x.de")
    run(a, *LINK, "--certain", "--wins", "there")
    pull(a, b)
    push(a, b)
    push(a, c)
    push(c, a)
    push(a, b)
    for node in (a, b, c):
        with node.at_work():
            assert Account.objects.get().name == "at b"
            assert Contact.objects.get().account == Account.objects.get()
    assert level(a, b, c)


def test_a_comparison_with_a_score(a, b):
    class Authors(sdata_sync.SyncResource):
        @staticmethod
        def match_on(ours, theirs):
            return 1.0 if ours["name"] == theirs["name"] else 0.8 if ours["name"][0] == theirs["name"][0] else 0.0

    sdata_sync.unregister(Author)
    try:
        with sdata_sync.registered(Author, Authors):
            for node, names in ((a, ["Ann", "Bob", "Cy"]), (b, ["Ann", "Bert", "Dan"])):
                with node.at_work():
                    Author.objects.bulk_create(Author(name=name) for name in names)
            found = run(a, "sync_link", "--peer", "node1", "--kind", "authors")
            assert [(c["certainty"], c["local"], c["remote"]) for c in found["candidates"]] == [
                ("certain", "Ann", "Ann"),
                ("likely", "Bob", "Bert"),
            ]
            assert (
                run(a, "sync_link", "--peer", "node1", "--kind", "authors", "--likely", "--wins", "here")["linked"] == 2
            )
    finally:
        sdata_sync.register(Author)(sdata_sync.SyncResource)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peer", "nobody", "--kind", "accounts"], "no peer called 'nobody'"),
        (["--peer", "node1", "--kind", "nothing"], "no kind 'nothing'"),
        (["--peer", "node1", "--kind", "salesOrders"], "has no match_on"),
        (["--peer", "node1", "--kind", "accounts", "--certain"], "Whose content stays"),
        (["--peer", "node1", "--kind", "accounts", "--apply", "/nowhere.csv", "--wins", "here"], "cannot be read"),
    ],
)
def test_what_cannot_be(a, b, arguments, message):
    with a.at_work(), pytest.raises(CommandError, match=message):
        call_command("sync_link", *arguments)


def test_a_file_that_says_nonsense(a, b, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("link,local_key,uuid\nyes,1,nonsense\n")
    with a.at_work(), pytest.raises(CommandError, match="line 2: expected a local_key and a uuid"):
        call_command(*LINK, "--apply", str(path), "--wins", "here")
    assert not path.with_suffix(".bak").exists()


def test_the_page_of_the_admin(a, b):
    from django.contrib.auth.models import User
    from django.test import Client

    fill(a, here="1@x.de", cased="2@X.de", twin1="3@x.de", twin2="3@x.de")
    fill(b, there="1@x.de", lower="2@x.de", twin="3@x.de")
    client = Client()
    with a.at_work():
        client.force_login(User.objects.create_superuser("root"))
        peer = Peer.objects.get(name="node1")
        page = client.get(reverse("admin:sdata_sync_peer_change", args=[peer.pk])).content.decode()
        url = reverse("admin:sdata_sync_peer_link", args=[peer.pk])
        assert f'href="{url}"' in page
        page = client.get(url).content.decode()
        assert "1 certain, 1 likely, 2 ambiguous" in page
        likely = next(part for part in page.split('value="') if "<td>likely</td>" in part).split('"')[0]
        refused = client.post(url, {"pair": [likely]}, follow=True).content.decode()
        assert "Whose content stays?" in refused
        done = client.post(url, {"certain": "yes", "pair": [likely], "wins": "there"}, follow=True)
        assert "2 linked" in done.content.decode()
        assert "0 certain, 0 likely, 2 ambiguous" in done.content.decode()
        client.force_login(User.objects.create_user("visitor", is_staff=True))
        assert client.get(url).status_code == 403
    pull(a, b)
    with a.at_work():
        assert {"there", "lower"} <= {row.name for row in Account.objects.all()}
        Peer.objects.filter(pk=peer.pk).update(credentials="nothing")
        client.force_login(User.objects.get(username="root"))
        assert "no entry &#x27;nothing&#x27;" in client.get(url).content.decode()


def test_names_of_properties_can_be_chosen():
    class Renamed(sdata_sync.SyncResource):
        fields = ["name"]
        field_names = {"name": "title"}

    with sdata_sync.registered(Stamped, Renamed) as resource:
        assert (
            resource.render("", ["x"])
            == '<stamped xmlns="http://schemas.sage.com/myContract"><title>x</title></stamped>'
        )
