"""The edge: who gets in, how requests may be spelled, what answers and errors look like."""

import gzip

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client, override_settings
from rest_framework.authtoken.models import Token

from sdata_sync.models import Digest, Peer
from testproject.crm.models import Account

from ..wire import (
    APP1,
    APP2,
    APP3,
    ENTRY,
    FEED,
    PATH,
    SEED,
    UUIDS,
    diagnosis,
    digest_entry,
    digest_xml,
    entry_xml,
    feed_xml,
    post,
    put_digest,
    results,
    ticks,
    ticks_in,
)

pytestmark = pytest.mark.django_db


class TestLogin:
    REQUESTS = [
        ("get", "$syncDigest"),
        ("put", "$syncDigest"),
        ("post", "$syncDigest"),
        ("post", "$syncTarget"),
    ]

    @pytest.mark.parametrize(("method", "operation"), REQUESTS)
    @pytest.mark.parametrize("kind", ["accounts", "nothings"])
    def test_nobody_gets_in_without(self, method, operation, kind):
        response = getattr(Client(), method)(PATH.replace("accounts", kind) + "/" + operation)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"]
        assert diagnosis(response)[0] == "NotAuthenticated"

    @pytest.mark.parametrize(("method", "operation"), REQUESTS)
    def test_a_login_alone_is_not_enough(self, method, operation):
        client = Client()
        client.force_login(User.objects.create_user("clerk"))
        response = getattr(client, method)(f"{PATH}/{operation}")
        assert response.status_code == 403

    @pytest.mark.parametrize(
        ("codename", "allowed"),
        [
            ("read_feeds", {("get", "$syncDigest")}),
            ("set_digest", {("put", "$syncDigest")}),
            ("push_feeds", {("post", "$syncTarget")}),
        ],
    )
    def test_each_permission_is_for_itself(self, codename, allowed):
        user = User.objects.create_user("one")
        user.user_permissions.set([Permission.objects.get(codename=codename)])
        Peer.objects.create(name="app1", url=APP1.rpartition("/")[0], user=user)
        client = Client(headers={"authorization": f"Token {Token.objects.create(user=user).key}"})
        documents = {
            "$syncDigest": (digest_entry((APP1, 2)), ENTRY),
            "$syncTarget": (feed_xml(digest_xml((APP1, 1))), FEED),
        }
        for method, operation in [("get", "$syncDigest"), ("put", "$syncDigest"), ("post", "$syncTarget")]:
            body, content_type = documents[operation]
            sent = {} if method == "get" else {"data": body, "content_type": content_type}
            response = getattr(client, method)(f"{PATH}/{operation}", **sent)
            assert response.status_code == (200 if (method, operation) in allowed else 403)

    def test_basic_authentication(self, engineer):
        import base64

        login = base64.b64encode(b"engineer:secret").decode()
        assert Client(headers={"authorization": f"Basic {login}"}).get(f"{PATH}/$syncDigest").status_code == 200

    def test_a_session_is_guarded_against_forgery(self, engineer):
        client = Client(enforce_csrf_checks=True)
        client.force_login(engineer)
        assert client.get(f"{PATH}/$syncDigest").status_code == 200
        assert post(client, SEED).status_code == 403


class TestSpellings:
    """Rulings 1, 3 and 4."""

    @pytest.mark.parametrize(
        "operation", ["$syncDigest", "$syncdigest", "$SYNCDIGEST", "%24syncDigest", "$syncDigest/"]
    )
    def test_urls_whatever_their_case(self, peer_client, operation):
        assert peer_client.get(f"{PATH}/{operation}").status_code == 200

    def test_kinds_whatever_their_case(self, peer_client):
        assert peer_client.get(f"{PATH[:-8]}ACCOUNTS/$syncDigest").status_code == 200

    @pytest.mark.parametrize(
        "content_type",
        [
            "application/atom+xml",
            "application/atom+xml;type=feed",
            'application/atom+xml; type="feed"; charset=utf-8',
            "application/xml",
            "text/xml; charset=UTF-8",
            "",
        ],
    )
    def test_media_types(self, peer_client, content_type):
        put_digest(peer_client, (APP1, 6), (APP2, 11))
        assert [r.status for r in results(post(peer_client, SEED, content_type=content_type))] == [200]

    @pytest.mark.parametrize(
        "accept", ["application/atom+xml;type=entry", "text/html", "*/*", "application/json;q=0.1"]
    )
    def test_whatever_a_client_accepts(self, peer_client, accept):
        response = peer_client.get(f"{PATH}/$syncDigest", headers={"accept": accept})
        assert response.status_code == 200
        assert response.headers["Content-Type"] == "application/atom+xml; type=entry; charset=utf-8"

    def test_query_parameters_are_no_obstacle(self, peer_client):
        put_digest(peer_client, (APP1, 6), (APP2, 11))
        response = peer_client.post(
            f"{PATH}/$syncTarget?runName=Full%20CRM%20to%20ERP&runStamp=soon",
            data=SEED,
            content_type=FEED,
        )
        assert [r.status for r in results(response)] == [200]

    def test_endpoints_whatever_their_case(self, peer_client):
        put_digest(peer_client, (APP1.upper(), 6), (APP2, 11))
        assert [r.message for r in results(post(peer_client, SEED))] == ["OK"]
        assert ticks(peer_client)[APP1.upper()] == 7

    def test_gzip(self, peer_client):
        put_digest(peer_client, (APP1, 6), (APP2, 11))
        response = post(peer_client, gzip.compress(SEED.encode()), **{"content-encoding": "gzip"})
        assert [r.status for r in results(response)] == [200]


class TestDigest:
    def test_origin_and_own_entry(self, peer_client):
        response = peer_client.get(f"{PATH}/$syncDigest")
        assert ticks_in(response.content) == {APP2: 1}
        assert f"<sync:origin>{APP2}</sync:origin>" in response.content.decode()

    def test_everything_committed_is_numbered_first(self, peer_client):
        Account.objects.create(name="x")
        assert ticks(peer_client) == {APP2: 2}

    def test_it_is_never_taken_from_the_host_header(self, peer_client):
        response = peer_client.get(f"{PATH}/$syncDigest", headers={"host": "evil.example.org"})
        assert b"evil" not in response.content

    def test_a_put_never_lowers_a_tick(self, peer_client):
        put_digest(peer_client, (APP1, 6), (APP3, 10))
        response = put_digest(peer_client, (APP1, 4), (APP3, 12))
        assert ticks_in(response.content) == {APP1: 6, APP2: 1, APP3: 12} == ticks(peer_client)

    def test_a_put_takes_over_priorities(self, peer_client):
        put_digest(peer_client, (APP1, 6, 3))
        put_digest(peer_client, (APP1, 6, 8))
        assert b"<sync:conflictPriority>8</sync:conflictPriority>" in peer_client.get(f"{PATH}/$syncDigest").content

    @pytest.mark.parametrize("body", ["", "<entry", "<!DOCTYPE x><entry/>"])
    def test_a_put_of_nothing(self, peer_client, body):
        response = peer_client.put(f"{PATH}/$syncDigest", data=body, content_type=ENTRY)
        assert response.status_code == 400
        assert diagnosis(response)[0] in ("NotXml", "DoctypeForbidden")


class TestRefusals:
    def test_an_unknown_kind(self, peer_client):
        response = peer_client.get(PATH.replace("accounts", "nothings") + "/$syncDigest")
        assert response.status_code == 404
        assert b"<sdata:sdataCode>ResourceKindNotFound</sdata:sdataCode>" in response.content

    @pytest.mark.parametrize(
        ("method", "operation"), [("delete", "$syncDigest"), ("get", "$syncResults"), ("put", "$syncTarget")]
    )
    def test_a_method_that_is_not_there(self, peer_client, method, operation):
        response = getattr(peer_client, method)(f"{PATH}/{operation}")
        assert response.status_code == 405
        assert diagnosis(response)[0] == "MethodNotAllowed"
        assert response.headers["Content-Type"] == "application/xml; charset=utf-8"

    def test_json(self, peer_client):
        response = post(peer_client, "{}", content_type="application/json")
        assert response.status_code == 415

    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            ("", 400, "NotXml"),
            ("neither", 400, "NotXml"),
            ('<!DOCTYPE feed SYSTEM "file:///etc/passwd"><feed/>', 400, "DoctypeForbidden"),
            ("<a>" * 101 + "</a>" * 101, 400, "TooDeep"),
            ("<feed/>", 400, "BadFeed"),
            ("<feed>" + " " * 100_000 + "</feed>", 413, "BodyTooLarge"),
        ],
    )
    def test_a_body_that_cannot_be_taken(self, peer_client, settings, body, status, code):
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "MAX_BODY_BYTES": 100_000}
        response = post(peer_client, body)
        assert response.status_code == status
        assert diagnosis(response)[0] == code

    def test_the_unpacked_size_counts(self, peer_client, settings):
        settings.SDATA_SYNC = {**settings.SDATA_SYNC, "MAX_BODY_BYTES": 100_000}
        bomb = gzip.compress(b"<feed>" + b" " * 50_000_000)
        assert len(bomb) < 60_000
        response = post(peer_client, bomb, **{"content-encoding": "gzip"})
        assert response.status_code == 413

    @pytest.mark.parametrize("body", [b"\x1f\x8b nonsense", gzip.compress(SEED.encode())[:-20], b""])
    def test_broken_gzip(self, peer_client, body):
        response = post(peer_client, body, **{"content-encoding": "gzip"})
        assert response.status_code == 400

    def test_an_unknown_encoding(self, peer_client):
        response = post(peer_client, SEED, **{"content-encoding": "br"})
        assert response.status_code == 400
        assert "'br'" in diagnosis(response)[1]

    def test_a_mistake_in_the_middle_applies_nothing(self, peer_client):
        entries = [entry_xml(UUIDS[n], APP1, n + 1, "<name>x</name>") for n in range(60)]
        entries[40] = entries[40].replace("<tick>41</tick>", "<tick>x</tick>")
        response = post(peer_client, feed_xml(digest_xml((APP1, 99)), *entries))
        assert response.status_code == 400
        assert "feed/entry[41]/syncState/tick" in diagnosis(response)[1]
        assert not Account.objects.exists()
        assert ticks(peer_client) == {APP2: 1}

    def test_our_own_feed(self, peer_client):
        response = post(peer_client, feed_xml(digest_xml((APP2, 3), origin=APP2.upper())))
        assert response.status_code == 400
        assert diagnosis(response)[0] == "SameEndpoint"

    @pytest.mark.parametrize("debug", [True, False])
    def test_a_fault_of_ours_is_told_without_its_trace(self, peer_client, monkeypatch, debug):
        def broken(*args):
            raise RuntimeError("the password is swordfish")

        monkeypatch.setattr("sdata_sync.api.views.sync.receive_feed", broken)
        with override_settings(DEBUG=debug):
            response = post(peer_client, SEED)
        assert response.status_code == 500
        assert (b"swordfish" in response.content) is debug

    def test_a_busy_database_is_transient(self, peer_client, monkeypatch):
        from django.db import OperationalError

        def busy(*args):
            raise OperationalError("database is locked")

        monkeypatch.setattr("sdata_sync.api.views.sync.receive_feed", busy)
        response = post(peer_client, SEED)
        assert response.status_code == 503
        assert b"<sdata:severity>transient</sdata:severity>" in response.content


def test_urls_can_be_reversed():
    from django.urls import reverse

    url = reverse("sdata_sync:sync-digest", kwargs={"kind": "accounts", "operation": "$syncDigest"[1:]})
    assert url == f"{PATH}/$syncDigest".replace("$", "%24") or url == f"{PATH}/$syncDigest"


def test_permissions_are_those_of_the_protocol():
    assert [codename for codename, _ in Digest._meta.permissions] == [
        "read_feeds",
        "push_feeds",
        "carry_feeds",
        "set_digest",
        "link_resources",
    ]
