"""A fixed number of mutated documents for every parser and every URL; ``make fuzz`` has as many as one likes."""

import random
from collections import Counter

import pytest
from django.test import Client

from .. import fuzz

DOCUMENTS = fuzz.seeds()


@pytest.mark.parametrize("seed", range(10))
def test_parsers_read_or_refuse(seed):
    dice, counts = random.Random(f"parsers {seed}"), Counter()
    for _ in range(100):
        fuzz.parse_all(dice, counts, DOCUMENTS)
    assert sum(counts.values()) == 100 * len(fuzz.parsers())
    assert counts["sync feed: read"]


@pytest.mark.django_db
@pytest.mark.parametrize("seed", range(10))
def test_no_request_is_answered_with_500(peer_client, seed):
    dice = random.Random(f"requests {seed}")
    client = Client(headers=peer_client.headers, raise_request_exception=False)
    client.defaults.update(peer_client.defaults)
    for _ in range(40):
        for method, path, body, headers in fuzz.requests(dice, DOCUMENTS):
            kind = headers.pop("content-type")
            response = client.generic(method, path, body, content_type=kind, headers=headers)
            assert response.status_code < 500, (method, path, body, response.content)
