"""Looking at resources, their schema and their links, as an engineer at the other side would."""

from uuid import UUID, uuid4
from xml.etree import ElementTree

import pytest
from lxml import etree

import sdata_sync
from sdata_sync.models import TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.scan import track_existing
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account, Contact, SalesOrder

from ..shapes.models import Article, Author, EveryField, Part, Tag
from ..wire import ENTRY, FEED, NS, PATH, diagnosis

pytestmark = pytest.mark.django_db

BASE = "/sdata/myApp2/myContract/-"
URL = f"http://www.example.com{PATH}"
CRM = "{http://schemas.sage.com/myContract}"
SDATA = f"{{{NS['sdata']}}}"


def raw(*names):
    """Accounts from before the app was installed."""
    return Account.objects.bulk_create(Account(name=name) for name in names)


def entries(response):
    assert response.status_code == 200, response.content
    return ElementTree.fromstring(response.content).findall("atom:entry", NS)


def payloads(response):
    return [entry.find("sdata:payload", NS)[0] for entry in entries(response)]


def following(response):
    links = ElementTree.fromstring(response.content).findall("atom:link", NS)
    return next((link.get("href") for link in links if link.get("rel") == "next"), None)


class TestCollection:
    def test_pages(self, peer_client):
        raw(*"abcde")
        seen, url = [], f"{URL}?count=2"
        while url:
            response = peer_client.get(url.removeprefix("http://www.example.com"))
            seen += [payload.findtext(f"{CRM}name") for payload in payloads(response)]
            url = following(response)
        assert seen == list("abcde")

    def test_by_index(self, peer_client):
        raw(*"abcde")
        response = peer_client.get(f"{PATH}?startIndex=4&count=1")
        assert [payload.findtext(f"{CRM}name") for payload in payloads(response)] == ["d"]
        assert b"<opensearch:totalResults>5<" in response.content
        assert b"<opensearch:startIndex>4<" in response.content

    def test_looking_gives_no_uuids(self, peer_client):
        account = raw("a")[0]
        Contact.objects.bulk_create([Contact(account=account, last_name="x")])
        [payload] = payloads(peer_client.get(f"{BASE}/contacts"))
        assert payload.get(f"{SDATA}uuid") is None
        assert payload.find(f"{CRM}account").attrib == {f"{SDATA}key": str(account.pk)}
        assert not TrackedResource.objects.exists()

    @pytest.mark.parametrize("query", ["after=x", "startIndex=0", "count=-1"])
    def test_a_place_that_is_none(self, peer_client, query):
        assert peer_client.get(f"{PATH}?{query}").status_code == 400

    def test_not_without_a_login(self, client):
        assert client.get(PATH).status_code == 401
        assert client.get(f"{PATH}/$linked").status_code == 401
        assert client.get(f"{BASE}/$schema").status_code == 401


class TestResource:
    def test_the_id_in_a_feed_can_be_opened(self, peer_client):
        account = Account.objects.create(name="ACME & Söhne")
        assign_ticks(registry.of_kind("accounts"))
        url = registry.of_kind("accounts").resource_url(str(account.pk))
        response = peer_client.get(url.removeprefix("http://www.example.com"))
        assert response.status_code == 200
        root = ElementTree.fromstring(response.content)
        assert root.findtext("atom:id", namespaces=NS) == url
        payload = root.find("sdata:payload", NS)[0]
        assert payload.findtext(f"{CRM}name") == "ACME & Söhne"
        assert UUID(payload.get(f"{SDATA}uuid")) == TrackedResource.objects.get().uuid

    def test_its_etag(self, peer_client):
        [account] = raw("a")
        url = f"{PATH}('{account.pk}')"
        tag = peer_client.get(url).headers["ETag"]
        assert peer_client.get(url, headers={"if-none-match": tag}).status_code == 304
        Account.objects.update(name="b")
        assert peer_client.get(url, headers={"if-none-match": tag}).status_code == 200

    @pytest.mark.parametrize("key", ["99", "007", "x", "1''1", "%00"])
    def test_that_is_not_there(self, peer_client, key):
        Account.objects.create(pk=7, name="a")
        assert peer_client.get(f"{PATH}('{key}')").status_code == 404

    def test_children_are_inside(self, peer_client):
        account = Account.objects.create(name="a")
        order = SalesOrder.objects.create(account=account, order_number="1", order_date="2026-01-01")
        order.lines.create(line_number=1)
        response = peer_client.get(f"{BASE}/salesOrders('{order.pk}')")
        assert response.content.count(b"<salesOrderLine") == 1


def link_entry(key, uuid=None, kind="accounts", method=""):
    said = f' sdata:uuid="{uuid}"' if uuid else ""
    http = f'<http:httpMethod xmlns:http="{NS["http"]}">{method}</http:httpMethod>' if method else ""
    return (
        f'<entry xmlns="{NS["atom"]}"><id/><title/>{http}<payload xmlns="{NS["sdata"]}" xmlns:sdata="{NS["sdata"]}">'
        f'<account xmlns="http://schemas.sage.com/myContract"{said} sdata:url="http://x/y/-/{kind}(\'{key}\')"/>'
        f"</payload></entry>"
    )


def post_link(client, *args, **options):
    return client.post(f"{PATH}/$linked", data=link_entry(*args, **options), content_type=ENTRY)


def uuid_in(response):
    return ElementTree.fromstring(response.content).find("sdata:payload", NS)[0].get(f"{SDATA}uuid")


class TestLinked:
    """The rules of SData sync 1.3."""

    def test_a_uuid_that_is_given(self, peer_client):
        [account] = raw("a")
        uuid = uuid4()
        response = post_link(peer_client, account.pk, uuid)
        assert response.status_code == 201
        assert response.headers["Location"] == f"{URL}/$linked('{uuid}')"
        assert uuid_in(response) == str(uuid)
        assert TrackedResource.objects.get().local_key == str(account.pk)

    def test_a_uuid_that_is_made_here(self, peer_client):
        [account] = raw("a")
        made = uuid_in(post_link(peer_client, account.pk))
        assert TrackedResource.objects.get().uuid == UUID(made)

    def test_what_is_linked_already(self, peer_client):
        [account] = raw("a")
        uuid = uuid_in(post_link(peer_client, account.pk))
        assert uuid_in(post_link(peer_client, account.pk)) == uuid
        assert uuid_in(post_link(peer_client, account.pk, uuid.upper())) == uuid
        refused = post_link(peer_client, account.pk, uuid4())
        assert refused.status_code == 409
        assert diagnosis(refused)[0] == "NotLinked"
        assert TrackedResource.objects.get().uuid == UUID(uuid)

    def test_a_uuid_that_another_row_has(self, peer_client):
        a, b = raw("a", "b")
        uuid = uuid_in(post_link(peer_client, a.pk))
        assert post_link(peer_client, b.pk, uuid).status_code == 409

    @pytest.mark.parametrize("arguments", [("99",), ("x",), ("1", None, "contacts")])
    def test_a_row_that_is_not_there(self, peer_client, arguments):
        assert post_link(peer_client, *arguments).status_code == 400

    def test_an_entry_that_is_none(self, peer_client):
        for body in ("", "<x/>", f'<entry xmlns="{NS["atom"]}"/>', link_entry("1", "not a uuid")):
            response = peer_client.post(f"{PATH}/$linked", data=body, content_type=ENTRY)
            assert response.status_code == 400
            assert diagnosis(response)[1]

    def test_the_list(self, peer_client):
        rows = raw(*"abcde")
        linked = [uuid_in(post_link(peer_client, row.pk)) for row in rows[1:]]
        seen, url = [], f"{URL}/$linked?count=3&select="
        while url:
            response = peer_client.get(url.removeprefix("http://www.example.com"))
            assert not any(len(payload) for payload in payloads(response))
            seen += [payload.get(f"{SDATA}uuid") for payload in payloads(response)]
            url = following(response)
        assert seen == linked
        [full] = payloads(peer_client.get(f"{PATH}/$linked?startIndex=2&count=1"))
        assert full.findtext(f"{CRM}name") == "c"

    def test_one(self, peer_client):
        [account] = raw("a")
        uuid = uuid_in(post_link(peer_client, account.pk))
        response = peer_client.get(f"{PATH}/$linked('{uuid}')")
        assert uuid_in(response) == uuid
        assert b"<name>a</name>" in response.content
        assert b"<name>" not in peer_client.get(f"{PATH}/$linked('{uuid}')?select=").content
        assert peer_client.get(f"{PATH}/$linked('{uuid4()}')").status_code == 404
        assert peer_client.get(f"{PATH}/$linked('x')").status_code == 404

    def test_another_uuid_keeps_the_old_one_as_an_alias(self, peer_client):
        [account] = raw("a")
        old, new = uuid_in(post_link(peer_client, account.pk)), str(uuid4())
        response = peer_client.put(f"{PATH}/$linked('{new}')", data=link_entry(account.pk, new), content_type=ENTRY)
        assert uuid_in(response) == new
        alias = TrackedResource.objects.get(uuid=old)
        assert (alias.is_deleted, str(alias.replaced_by), alias.local_key) == (True, new, None)
        assert alias.tick < TrackedResource.objects.get(uuid=new).tick  # who hears of both renames first

    def test_reassigned_to_another_row(self, peer_client):
        a, b = raw("a", "b")
        uuid = uuid_in(post_link(peer_client, a.pk))
        response = peer_client.put(f"{PATH}/$linked('{uuid}')", data=link_entry(b.pk), content_type=ENTRY)
        assert b"<name>b</name>" in response.content
        assert TrackedResource.objects.get(uuid=uuid).local_key == str(b.pk)
        assert str(TrackedResource.objects.get(local_key=a.pk).uuid) != uuid

    def test_deleted(self, peer_client):
        [account] = raw("a")
        uuid = uuid_in(post_link(peer_client, account.pk))
        response = peer_client.delete(f"{PATH}/$linked('{uuid}')")
        assert (response.status_code, response.headers["Content-Type"]) == (200, "text/plain")
        assert Account.objects.exists()
        assert not TrackedResource.objects.exists()
        assert peer_client.delete(f"{PATH}/$linked('{uuid}')").status_code == 404

    def test_a_batch(self, peer_client):
        a, b, c = raw("a", "b", "c")
        linked = uuid_in(post_link(peer_client, c.pk))
        given = str(uuid4())
        inside = "".join(
            [
                link_entry(a.pk, given, method="POST"),
                link_entry(b.pk),
                link_entry("99"),
                link_entry(c.pk, linked, method="DELETE"),
                link_entry(a.pk, given, method="PATCH"),
            ]
        )
        response = peer_client.post(
            f"{PATH}/$linked/$batch", data=f'<feed xmlns="{NS["atom"]}">{inside}</feed>', content_type=FEED
        )
        statuses = [entry.findtext("http:httpStatus", namespaces=NS) for entry in entries(response)]
        assert statuses == ["201", "201", "400", "200", "400"]
        assert set(TrackedResource.objects.values_list("local_key", flat=True)) == {str(a.pk), str(b.pk)}

    def test_not_without_its_permission(self, client, engineer):
        from django.contrib.auth.models import Permission

        engineer.user_permissions.remove(Permission.objects.get(codename="link_resources"))
        client.force_login(engineer)
        assert post_link(client, "1").status_code == 403


class TestSchema:
    def schema(self, client, query=""):
        response = client.get(f"{BASE}/$schema{query}")
        assert response.status_code == 200, response.content
        return etree.fromstring(response.content)

    def test_what_it_says_of_a_kind(self, peer_client):
        root = self.schema(peer_client)
        sme = "{http://schemas.sage.com/sdata/sme/2007}"
        said = {element.get("name"): element for element in root.findall("{*}element")}
        orders = {name: said[name].get(f"{sme}syncOrder") for name in ("account", "contact", "salesOrder")}
        assert orders == {"account": "1", "contact": "2", "salesOrder": "3"}
        account = said["account"]
        assert account.get(f"{sme}role") == "resourceKind"
        assert account.get(f"{sme}pluralName") == "accounts"
        assert account.get(f"{sme}isSyncSource") == account.get(f"{sme}isSyncTarget") == "true"
        assert account.get(f"{sme}syncConflictPriority") == "5"
        properties = {element.get("name"): element for element in root.iter("{*}element")}
        assert properties["shipDate"].get("nillable") == "true"
        assert properties["shipDate"].get("type") == "xs:date"
        assert properties["lastName"].get(f"{sme}isMandatory") == "true"
        assert properties["contact"].get(f"{sme}relationship") == "reference"
        assert properties["orderLines"].get(f"{sme}relationship") == "child"
        assert properties["orderLines"].get(f"{sme}isCollection") == "true"

    def test_a_kind_leads_there(self, peer_client):
        response = peer_client.get(f"{PATH}/$schema")
        assert response.status_code == 302
        assert response.headers["Location"] == "http://www.example.com/sdata/myApp2/myContract/-/$schema#account"

    def test_another_namespace(self, peer_client):
        class Elsewhere(sdata_sync.SyncResource):
            namespace = "urn:elsewhere"

        with sdata_sync.registered(Author, Elsewhere):
            assert self.schema(peer_client, "?namespace=urn:elsewhere").get("targetNamespace") == "urn:elsewhere"
            assert peer_client.get(f"{BASE}/$schema?namespace=urn:nowhere").status_code == 404

    def test_what_is_written_is_valid(self, peer_client):
        """Of every kind, with every field that there is."""

        class PartSync(sdata_sync.SyncResource):
            model = Part

        class ArticleSync(sdata_sync.SyncResource):
            fields = ["title", "author", "tags", "about", "sequel_to"]
            children = {"parts": PartSync}

        account = Account.objects.create(name="a", credit_limit="12.5")
        contact = Contact.objects.create(account=account, last_name="x")
        Account.objects.create(name="b", main_contact=contact)
        order = SalesOrder.objects.create(account=account, order_number="1", order_date="2026-01-01")
        order.lines.create(line_number=1)
        with (
            sdata_sync.registered(EveryField),
            sdata_sync.registered(Author),
            sdata_sync.registered(Tag),
            sdata_sync.registered(Article, ArticleSync),
        ):
            self.fill()
            schema = etree.XMLSchema(self.schema(peer_client))
            seen = set()
            for resource in registry:
                track_existing(resource)
                response = peer_client.get(f"{BASE}/{resource.name}")
                assert response.status_code == 200, response.content
                for payload in etree.fromstring(response.content).iter(f"{SDATA}payload"):
                    schema.assertValid(payload[0])
                    seen.add(etree.QName(payload[0]).localname)
            assert seen == {"account", "contact", "salesOrder", "everyField", "author", "tag", "article"}
            wrong = etree.fromstring(etree.tostring(payload[0]).replace(b"orderDate>", b"orderDay>"))
            assert not schema.validate(wrong)

    def fill(self):
        import datetime
        from decimal import Decimal

        EveryField.objects.create()
        EveryField.objects.create(
            char="a", text="b", slug="c", email="d@example.com", url="http://x", choice="r", boolean=True, integer=-1,
            big=2**60, small=3, float=1e300, decimal=Decimal("1.5"), moment=datetime.datetime.now(datetime.UTC),
            date=datetime.date.today(), time=datetime.time(1, 2, 3), duration=-datetime.timedelta(days=3, seconds=1.5),
            uuid=uuid4(), ip="::1", binary=b"\x00", json={"a": [1]}, file="x",
        )  # fmt: skip
        article = Article.objects.create(title="1", author=Author.objects.create(name="a"))
        article.tags.add(Tag.objects.create(name="t"))
        article.about = Tag.objects.get()
        article.save()
        article.parts.create(rank=1)
