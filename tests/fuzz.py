"""``make fuzz SECONDS=600``: mutated documents for every parser and every URL, with the counts printed at the end.

A parser may raise a ``SyncError``; a URL may answer anything below 500. The gate runs a fixed number of cases
(``tests/hostile/test_fuzz.py``).
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

from .wire import APP1, APP2, UUIDS, digest_entry, digest_xml, entry_xml, feed_xml

DATA = Path(__file__).parent / "data"
#: What is inserted: fragments that a parser may take for something else than they are.
FRAGMENTS = [
    b"<", b">", b"/>", b"</", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<?x?>", b"<!DOCTYPE x>", b"&amp;", b"&x;", b"&#0;", b"&#x110000;",
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc0\x80", b"\xed\xa0\x80", b"''", b'"', b"=", b" ", b"\n", b"-1", b"0", b"9" * 30, b"1e9",
    b"true", b"xmlns=''", b' xmlns:x="y"', b' xsi:nil="true"', b' sdata:isDeleted="true"', b"immediate", b"catchUp", b"9999-12-31T23:59:59Z",
    b"0000-00-00", b"http://x/y/z/-/accounts", "\u0130\u202e\u0000\U0001f600".encode(), b"<a>" * 120, b"<digestEntry/>", b"<entry/>",
]  # fmt: skip


def seeds() -> list[bytes]:
    """Return documents that are right, which are mutated."""
    digest = digest_xml((APP1, 7), (APP2, 11), origin=APP1)
    entries = [
        entry_xml(UUIDS[0], APP1, 1, "<name>one</name><creditLimit>1.50</creditLimit>"),
        entry_xml(UUIDS[1], APP1, 2, deleted=True),
        entry_xml(UUIDS[2], APP1, 3, deleted=True, replaced_by=UUIDS[3]),
        entry_xml(UUIDS[4], APP2, 3, '<name xsi:nil="true"/><unknown><a/></unknown>', user="ann"),
    ]
    documents = [
        feed_xml(digest, *entries),
        feed_xml(digest, *entries[::-1], mode="catchUp", next_url="http://x/next"),
        digest_entry((APP1, 7), origin=APP1),
    ]
    documents += [path.read_text() for path in DATA.glob("*.xml")]
    return [document.encode() for document in documents]


def mutated(dice: random.Random, documents: list[bytes]) -> bytes:
    """Return one of the documents after some random changes."""
    document = bytearray(dice.choice(documents))
    for _ in range(dice.choice([0, 1, 1, 1, 2, 3, 8])):
        place, other = sorted((dice.randrange(len(document) + 1), dice.randrange(len(document) + 1)))
        other = min(other, place + dice.choice([1, 8, 64, 512]))
        match dice.randrange(6):
            case 0:
                document[place:other] = b""
            case 1:
                document[place:place] = dice.choice(FRAGMENTS)
            case 2:
                document[place:place] = document[place:other]
            case 3:
                document[place:other] = dice.choice(FRAGMENTS)
            case 4:
                document[place:place] = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 8)))
            case 5:
                donor = dice.choice(documents)
                begin = dice.randrange(len(donor))
                document[place:other] = donor[begin : begin + dice.choice([8, 64, 512])]
    return bytes(document)


def parsers() -> dict[str, Callable[[bytes], object]]:
    """Return the parsers of documents by name."""
    from sdata_sync.atom.diagnosis import read_diagnoses
    from sdata_sync.atom.digest import read_digest_entry
    from sdata_sync.atom.feed import read_result_feed, read_sync_feed
    from sdata_sync.atom.linked import read_batch, read_link, read_link_entry
    from sdata_sync.atom.schema import read_schema
    from sdata_sync.atom.tracking import read_polling_millis
    from sdata_sync.registry import registry

    def read_payloads(data: bytes) -> None:
        kind = registry.of_kind("accounts")
        assert kind is not None
        for entry in read_sync_feed(BytesIO(data)).entries():
            if entry.payload is not None:
                kind.decode(entry.payload)
                entry.payload.xml(uuid=str(entry.uuid))

    return {
        "sync feed": lambda data: list(read_sync_feed(BytesIO(data)).entries()),
        "payloads": read_payloads,
        "result feed": lambda data: list(read_result_feed(BytesIO(data)).entries()),
        "digest": lambda data: read_digest_entry(BytesIO(data)),
        "link": lambda data: read_link_entry(BytesIO(data)),
        "batch": lambda data: [read_link(element, "entry") for element in read_batch(BytesIO(data))],
        "schema": lambda data: read_schema(BytesIO(data)),
        "diagnoses": lambda data: read_diagnoses(BytesIO(data)),
        "tracking": lambda data: read_polling_millis(BytesIO(data)),
    }


def parse_all(dice: random.Random, counts: Counter[str], documents: list[bytes]) -> None:
    """Give one mutated document to every parser.

    Raises:
        Exception: a parser raised anything but a ``SyncError``.
    """
    from sdata_sync.exceptions import SyncError

    data = mutated(dice, documents)
    for name, parse in parsers().items():
        try:
            parse(data)
            counts[f"{name}: read"] += 1
        except SyncError as error:
            counts[f"{name}: {type(error).__name__}"] += 1


def requests(dice: random.Random, documents: list[bytes]) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Yield one random request: method, path, body and headers."""
    dataset = "/sdata/myApp2/myContract/-"
    path = dice.choice(
        ["$syncDigest", "$syncSource", "$syncTarget", "$syncResults", "$linked", "$linked/$batch", "$schema", "", f"$linked('{UUIDS[0]}')"]
    )  # fmt: skip
    query = dice.choice(
        [
            "",
            "",
            "trackingID=x",
            "count=0",
            "count=2",
            "startIndex=-1",
            "runName=%00",
            "place=x",
            "maxBytes=5",
            "after=x",
            "%ff=%fe",
        ]
    )
    url = f"{dataset}/{dice.choice(['accounts', 'accounts', 'contacts', 'nothing', '%00'])}/{path}".rstrip("/")
    headers = dice.choice(
        [{}, {}, {"content-encoding": "gzip"}, {"content-encoding": "x"}, {"accept": "*/*;q=x"}, {"range": "x"}]
    )
    kind = dice.choice(
        [
            "application/atom+xml; type=feed",
            "application/atom+xml; type=entry",
            "text/xml",
            "",
            "application/json",
            ";;",
        ]
    )
    method = dice.choice(["POST", "POST", "POST", "PUT", "GET", "DELETE", "OPTIONS"])
    yield method, f"{url}?{query}", mutated(dice, documents), {**headers, "content-type": kind}


def main(seconds: float) -> int:
    """Run parsers and requests for some time; print the counts, and the document of a failure."""
    import django

    django.setup()
    seed = random.randrange(2**32)
    dice, documents, counts = random.Random(seed), seeds(), Counter[str]()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        state = dice.getstate()
        try:
            parse_all(dice, counts, documents)
        except Exception:
            dice.setstate(state)
            print(f"seed {seed}: {mutated(dice, documents)!r}")
            raise
    for name, count in sorted(counts.items()):
        print(f"{count:10,} {name}")
    print(f"{sum(counts.values()):10,} in {seconds:.0f} s; seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60))
