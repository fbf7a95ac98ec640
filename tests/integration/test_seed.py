"""The document this project comes from: SData sync 5.8, request by request."""

import pytest

from testproject.crm.models import Account

from ..wire import (
    APP1,
    APP2,
    APP3,
    SEED,
    UUIDS,
    diagnosis,
    digest_xml,
    entry_xml,
    feed_xml,
    post,
    put_digest,
    results,
)
from ..wire import ticks as digest_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def target(peer_client):
    put_digest(peer_client, (APP1, 6, 1), (APP2, 11, 2), (APP3, 10, 3))
    return peer_client


def test_the_target_before(target):
    assert digest_of(target) == {APP1: 6, APP2: 11, APP3: 10}


def test_the_feed_of_the_page(target):
    response = post(target, SEED)
    assert [(r.status, r.message) for r in results(response)] == [(200, "OK")]
    assert digest_of(target) == {APP1: 7, APP2: 11, APP3: 10}
    assert [account.name for account in Account.objects.all()] == ["Chemical Brothers Inc."]


def test_posted_again_it_changes_nothing(target):
    post(target, SEED)
    before = Account.objects.values().get()
    assert [(r.status, r.message) for r in results(post(target, SEED))] == [(200, "Unchanged")]
    assert digest_of(target) == {APP1: 7, APP2: 11, APP3: 10}
    assert Account.objects.values().get() == before


@pytest.mark.parametrize(
    ("received", "code", "expected", "came"),
    [
        ([7], "TickGap", 6, 7),
        ([6, 8], "TickGap", 7, 8),
        ([6, 6], "TickOrder", 7, 6),
        ([6, 7, 5], "TickOrder", 8, 5),
    ],
)
def test_a_wrong_tick_refuses_the_whole_feed(target, received, code, expected, came):
    entries = [entry_xml(UUIDS[i], APP1, tick, "<name>x</name>") for i, tick in enumerate(received)]
    response = post(target, feed_xml(digest_xml((APP1, 9, 1)), *entries))
    assert response.status_code == 400
    said, message = diagnosis(response)
    assert said == code
    assert APP1 in message
    assert f"tick {expected} " in message
    assert message.endswith(f"received {came}.")
    assert digest_of(target) == {APP1: 6, APP2: 11, APP3: 10}
    assert not Account.objects.exists()
