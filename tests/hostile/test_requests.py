"""Requests that are made for another purpose than they seem, or that cost much: refused, and nothing is changed."""

from base64 import b64encode

import pytest
from django.contrib.auth.models import User
from django.test import Client

from sdata_sync.models import TrackedResource
from sdata_sync.registry import registry
from testproject.crm.models import Account

from ..wire import APP1, ENTRY, FEED, PATH, UUIDS, diagnosis, digest_xml, entry_xml, feed_xml

pytestmark = pytest.mark.django_db
ACCOUNTS = registry.of_model(Account)
FEED_BODY = feed_xml(digest_xml((APP1, 2), origin=APP1), entry_xml(UUIDS[0], APP1, 1, "<name>x</name>"))


def basic(name, password):
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


@pytest.fixture
def by_basic(db):
    User.objects.create_superuser("boss", password="secret")
    return Client(headers={"authorization": basic("boss", "secret")})


class TestFromABrowser:
    """A page of another site makes the browser of a user who is logged in post a feed."""

    @pytest.mark.parametrize(
        "headers",
        [
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"origin": "http://evil.example.com"},
            {"origin": "null"},
        ],
    )
    @pytest.mark.parametrize("how", ["basic", "session"])
    @pytest.mark.parametrize("path", ["$syncTarget", "$linked/$batch", "$syncResults"])
    def test_a_body_without_a_content_type_is_refused(self, by_basic, headers, how, path):
        if how == "session":
            by_basic = Client()
            by_basic.force_login(User.objects.get())
        response = by_basic.generic("POST", f"{PATH}/{path}", FEED_BODY, content_type="", headers=headers)
        assert response.status_code == 403
        assert not Account.objects.exists()

    @pytest.mark.parametrize("headers", [{}, {"sec-fetch-site": "none"}, {"origin": "http://testserver"}])
    def test_other_clients_may_leave_it_out(self, by_basic, headers):
        response = by_basic.generic("POST", f"{PATH}/$syncTarget", FEED_BODY, content_type="", headers=headers)
        assert response.status_code == 200

    @pytest.mark.parametrize(
        "kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"]
    )
    def test_what_a_form_can_send_is_refused(self, by_basic, kind):
        response = by_basic.generic("POST", f"{PATH}/$syncTarget", FEED_BODY, content_type=kind)
        assert response.status_code == 415


class TestLogins:
    @pytest.mark.parametrize("name", ["bo\0ss", "\0", "boss"])
    @pytest.mark.parametrize("password", ["se\0cret", "\0"])
    def test_with_nul_are_400(self, db, name, password):
        response = Client(headers={"authorization": basic(name, password)}).get(f"{PATH}/$syncDigest")
        assert (response.status_code, diagnosis(response)[0]) == (400, "BadFeed")

    @pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic =", "Token", "Token a b", "x", "Basic é"])
    def test_that_are_none_are_401(self, db, header):
        assert Client(headers={"authorization": header}).get(f"{PATH}/$syncDigest").status_code == 401


class TestRefusedMethods:
    @pytest.mark.parametrize("method", ["OPTIONS", "PATCH", "DELETE", "TRACE"])
    @pytest.mark.parametrize("path", ["", "$syncDigest", "$syncSource", "$linked", "$linked/$batch", "$schema"])
    def test_assign_no_ticks(self, by_basic, method, path):
        Account.objects.create(name="one")
        response = by_basic.generic(method, f"{PATH}/{path}" if path else PATH)
        assert response.status_code in (200, 204, 404, 405)
        assert TrackedResource.objects.get().tick is None


class TestBatchesOfLinks:
    def test_that_break_off_change_nothing(self, peer_client):
        first, second = Account.objects.create(name="one"), Account.objects.create(name="two")
        entry = (
            '<entry xmlns="http://www.w3.org/2005/Atom" xmlns:sdata="http://schemas.sage.com/sdata/2008/1" '
            'xmlns:http="http://schemas.sage.com/sdata/http/2008/1"><http:httpMethod>POST</http:httpMethod>'
            '<sdata:payload><account sdata:uuid="{}" sdata:url="http://www.example.com' + PATH + "('{}')\"/>"
            "</sdata:payload></entry>"
        )
        whole = "".join(entry.format(uuid, row.pk) for uuid, row in zip(UUIDS, (first, second), strict=False))
        body = f'<feed xmlns="http://www.w3.org/2005/Atom">{whole}'
        known = set(TrackedResource.objects.values_list("uuid", flat=True))
        broken = peer_client.post(f"{PATH}/$linked/$batch", data=f"{body}<broken", content_type=FEED)
        assert broken.status_code == 400
        assert set(TrackedResource.objects.values_list("uuid", flat=True)) == known
        assert not TrackedResource.objects.filter(uuid__in=UUIDS[:2]).exists()


class TestWhatPrecedesTheRoot:
    @pytest.mark.parametrize("filler", ["<!--{}-->", "{}", "<?pi {}?>"])
    def test_is_bounded(self, peer_client, filler):
        """One MiB of it was read again with each two KiB: half a second of a processor."""
        body = filler.format(" " * 20_000) + FEED_BODY
        response = peer_client.post(f"{PATH}/$syncTarget", data=body, content_type=FEED)
        assert (response.status_code, diagnosis(response)[0]) == (400, "NotXml")

    def test_a_little_is_read(self, peer_client):
        body = "<!-- " + "x" * 10_000 + " -->" + FEED_BODY
        assert peer_client.post(f"{PATH}/$syncTarget", data=body, content_type=FEED).status_code == 200


@pytest.mark.parametrize(
    ("path", "is_below"),
    [
        ("accounts/$syncSource('a')?page=2", True),
        ("accounts/$syncSource('a%20b')", True),
        ("../x", False),
        ("accounts/%2e%2e/x", False),
        ("accounts/%252e%252e/x", False),
        ("accounts/%25252e%25252e/x", False),
        ("accounts/%2525252525252e%2e/x", False),
        ("accounts/..%5cx", False),
        ("accounts%5c..%5cx", False),
    ],
)
def test_links_that_leave_the_dataset_are_not_followed(path, is_below, settings):
    from sdata_sync.delivery.client import PeerClient
    from sdata_sync.models import Peer

    settings.SDATA_SYNC = {**settings.SDATA_SYNC, "CREDENTIALS": {"p": {"token": "x"}}}
    with PeerClient.for_peer(Peer(name="p", url="http://127.0.0.1:1/sdata/a/b/-", credentials="p")) as client:
        assert client._is_below(f"http://127.0.0.1:1/sdata/a/b/-/{path}") is is_below


def test_entries_of_a_digest_are_one_document(peer_client):
    response = peer_client.put(f"{PATH}/$syncDigest", data="<entry/>" * 2, content_type=ENTRY)
    assert response.status_code == 400


class TestAttributes:
    def feed(self, inner):
        return feed_xml(digest_xml((APP1, 2), origin=APP1), entry_xml(UUIDS[0], APP1, 1, inner))

    @pytest.mark.parametrize(
        ("count", "where"), [(1001, "entry"), (1001, "root"), (30_000, "entry"), (100_000, "entry")]
    )
    def test_of_one_element_are_bounded(self, peer_client, count, where):
        attributes = " ".join(f'a{n}=""' for n in range(count))
        body = self.feed(f"<name {attributes}>x</name>")
        if where == "root":
            body = self.feed("<name>x</name>").replace("<feed ", f"<feed {attributes} ", 1)
        response = peer_client.post(f"{PATH}/$syncTarget", data=body, content_type=FEED)
        assert (response.status_code, diagnosis(response)[0]) == (400, "TooManyElements")

    def test_of_an_entry_are_bounded(self, peer_client):
        element = "<a " + " ".join(f'a{n}=""' for n in range(90)) + "/>"
        body = self.feed(element * 1500)
        response = peer_client.post(f"{PATH}/$syncTarget", data=body, content_type=FEED)
        assert (response.status_code, diagnosis(response)[0]) == (400, "TooManyElements")

    @pytest.mark.parametrize("size", [2000, 200_000])
    def test_a_text_may_have_as_many_equal_signs_as_it_likes(self, peer_client, size):
        body = self.feed(f"<name>x</name><notes>{'a=b ' * size}</notes>")
        assert peer_client.post(f"{PATH}/$syncTarget", data=body, content_type=FEED).status_code == 200
        assert Account.objects.get().notes.count("=") == size


class TestThrottling:
    def test_more_requests_than_the_setting_are_429(self, peer_client, settings):
        from django.core.cache import cache

        cache.clear()
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "MAX_REQUESTS_PER_MINUTE": 3}
        settings.REST_FRAMEWORK = {
            **settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": {"user": "1/day"},
        }  # fmt: skip
        said = [peer_client.get(f"{PATH}/$syncDigest") for _ in range(5)]
        assert sorted({response.status_code for response in said}) == [200, 429]
        assert [response.status_code for response in said].count(200) in (3, 4, 5)  # a minute may begin in between
        refused = said[-1]
        if refused.status_code == 429:
            assert 0 < int(refused["Retry-After"]) <= 60
            assert diagnosis(refused)[0] == "Throttled"
