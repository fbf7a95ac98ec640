"""Every page of the admin opens, and says what an administrator wants to know at night."""

import pytest
from django.urls import reverse

from sdata_sync.models import DeferredEntry, Digest, Endpoint, Peer, Stream, TrackedResource
from sdata_sync.registry import registry
from sdata_sync.sync.stamp.stamper import assign_ticks
from testproject.crm.models import Account

pytestmark = pytest.mark.django_db


@pytest.fixture
def things():
    account = Account.objects.create(name="a")
    deleted = Account.objects.create(name="b")
    assign_ticks(registry.of_model(Account))
    deleted.delete()
    held = Account.objects.create(name="\x07")
    assign_ticks(registry.of_model(Account))
    peer = Peer.objects.create(name="Branch", url="http://127.0.0.1:9/sdata/b/c/-")
    Stream.objects.create(
        peer=peer, kind="accounts", failures=3, last_error="no answer", last_error_at=1, known_digest="{}"
    )
    tracked = TrackedResource.objects.get(local_key=account.pk)
    DeferredEntry.objects.create(
        resource=tracked,
        payload="<x/>",
        application_code="Deferred",
        reason="too long",
        received_at="2024-01-01T00:00Z",
    )
    Endpoint.objects.update(clock_ahead=90_000)
    return {"account": account, "held": held, "peer": peer}


MODELS = [DeferredEntry, Digest, Endpoint, Peer, TrackedResource]


@pytest.mark.parametrize("model", MODELS)
def test_lists_and_their_pages_open(admin_client, things, model):
    name = f"admin:sdata_sync_{model._meta.model_name}"
    response = admin_client.get(reverse(f"{name}_changelist"))
    assert response.status_code == 200
    for instance in model.objects.all():
        page = admin_client.get(reverse(f"{name}_change", args=[instance.pk]))
        assert page.status_code == 200, instance


@pytest.mark.parametrize("model", [m for m in MODELS if m is not Peer])
def test_what_a_hand_would_break_is_read_only(admin_client, things, model):
    name = f"admin:sdata_sync_{model._meta.model_name}"
    assert admin_client.get(reverse(f"{name}_add")).status_code == 403
    instance = model.objects.first()
    assert admin_client.post(reverse(f"{name}_change", args=[instance.pk]), {}).status_code == 403
    assert admin_client.post(reverse(f"{name}_delete", args=[instance.pk]), {"post": "yes"}).status_code == 403


def test_the_digest_is_a_table(admin_client, things):
    page = admin_client.get(reverse("admin:sdata_sync_digest_change", args=["accounts"])).content.decode()
    assert "http://www.example.com/sdata/myApp2/myContract/-/accounts" in page
    assert 'alt="True"' in page, "our own endpoint is marked"
    listing = admin_client.get(reverse("admin:sdata_sync_digest_changelist")).content.decode()
    assert '<td class="field-our_tick">4</td>' in listing


def test_peers_show_their_lag_and_their_state(admin_client, things):
    page = admin_client.get(reverse("admin:sdata_sync_peer_changelist")).content.decode()
    assert "accounts: 3 ticks behind" in page
    assert "accounts: no answer" in page


def test_tracked_resources_link_to_their_objects(admin_client, things):
    page = admin_client.get(reverse("admin:sdata_sync_trackedresource_changelist")).content.decode()
    assert f'href="{reverse("admin:crm_account_change", args=[things["account"].pk])}"' in page
    assert "held back: name: XML cannot hold the character U+0007" in page
    assert "deleted" in page


def test_clocks_that_are_ahead(admin_client, things):
    assert "90.0 s ahead of ours" in admin_client.get(reverse("admin:sdata_sync_endpoint_changelist")).content.decode()


def test_deliver_now_says_what_came_of_it(admin_client, things):
    url = reverse("admin:sdata_sync_peer_changelist")
    data = {"action": "deliver_now", "_selected_action": [things["peer"].pk]}
    page = admin_client.post(url, data, follow=True).content.decode()
    assert "Branch is not in sync" in page
    assert "PeerUnreachable" not in page
    assert "ConnectError" in page


def test_a_peer_is_checked_before_it_is_saved(admin_client):
    data = {
        "name": "Me",
        "url": "HTTP://www.example.com/sdata/myapp2/myContract/-/",
        "immediate": "on",
        "enabled": "on",
    }
    data |= {"streams-TOTAL_FORMS": 0, "streams-INITIAL_FORMS": 0}
    page = admin_client.post(reverse("admin:sdata_sync_peer_add"), data).content.decode()
    assert "a node cannot be its own peer" in page
    assert not Peer.objects.exists()
