"""Writing: strict, and read back exactly."""

import io
from uuid import UUID
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdata_sync.atom.digest import read_digest_entry, render_digest_entry
from sdata_sync.atom.entry import Result, read_state, render_entry, render_result
from sdata_sync.atom.feed import SyncMode, read_result_feed, read_sync_feed
from sdata_sync.atom.payload import Payload, PayloadTemplate, identity
from sdata_sync.atom.renderer import Paging, render_feed
from sdata_sync.atom.text import escape, is_representable
from sdata_sync.atom.tracking import Tracking, render_tracking
from sdata_sync.core.digest import Digest, DigestEntry
from sdata_sync.core.state import SyncState
from sdata_sync.exceptions import UnrepresentableText

from ..wire import APP1, APP2, NS, UUIDS

DIGEST = Digest(
    [DigestEntry(endpoint=APP1, tick=7, stamp=1, conflict_priority=2), DigestEntry(endpoint=APP2, tick=11)],
    origin=APP1,
)
STATE = SyncState(endpoint=APP1, tick=6, stamp=1225390419281, user="john.doe@acme.com")
TEMPLATE = PayloadTemplate.of("account", "http://schemas.sage.com/myContract", ("name", "notes"))

xml_text = st.text(alphabet=st.characters(codec="utf-8")).filter(is_representable)


def feed(*entries: str, next_url="") -> bytes:
    return b"".join(
        render_feed(
            entries,
            url=f"{APP1}/$syncSource",
            title="t",
            digest=DIGEST,
            now=0,
            sync_mode=SyncMode.CATCH_UP,
            paging=Paging(next_url=next_url),
        )
    )


def entry(texts, fragments="") -> str:
    payload = TEMPLATE.render(identity(uuid=UUIDS[0], key="5", url=f"{APP1}('5')"), texts, fragments)
    return render_entry(id=f"{APP1}('5')", title="account 5", state=STATE, payload=payload)


@given(xml_text, st.one_of(st.none(), xml_text))
def test_every_text_is_read_back_exactly(name, notes):
    [read] = read_sync_feed(io.BytesIO(feed(entry([name, notes])))).entries()
    assert {item.name: item.text for item in read.payload} == {"name": name, "notes": notes}


def test_an_entry_is_read_back():
    reader = read_sync_feed(io.BytesIO(feed(entry(["x", None]), next_url="http://x/?a=1&b=2")))
    [read] = reader.entries()
    assert read.state == STATE
    assert read.uuid == UUID(UUIDS[0])
    assert read.id == f"{APP1}('5')"
    assert reader.next_url == "http://x/?a=1&b=2"
    assert reader.header.digest.in_sync_with(DIGEST)
    assert reader.header.digest.conflict_priority(APP1) == 2
    assert reader.header.digest.origin == APP1


def test_as_the_pages_write_it():
    root = ElementTree.fromstring(feed(entry(["x", None])))
    account = root.find("atom:entry/sdata:payload/{http://schemas.sage.com/myContract}account", NS)
    assert account.attrib[f"{{{NS['sdata']}}}uuid"] == UUIDS[0]
    assert account.attrib[f"{{{NS['sdata']}}}key"] == "5"
    assert account.attrib[f"{{{NS['sdata']}}}url"] == account.attrib[f"{{{NS['sdata']}}}uri"] == f"{APP1}('5')"
    notes = account.find("{http://schemas.sage.com/myContract}notes")
    assert notes.attrib == {"{http://www.w3.org/2001/XMLSchema-instance}nil": "true"}
    assert root.findtext("sync:syncMode", namespaces=NS) == "catchUp"
    assert root.findtext("atom:entry/sync:syncState/sync:stamp", namespaces=NS) == "2008-10-30T18:13:39.281Z"
    assert [child.tag.rpartition("}")[2] for child in root][:2] == ["id", "title"]


def test_a_deletion():
    payload = TEMPLATE.render_empty(identity(uuid=UUIDS[0], deleted=True))
    [read] = read_sync_feed(
        io.BytesIO(feed(render_entry(id="urn:x", title="t", state=STATE, payload=payload)))
    ).entries()
    assert read.is_deleted
    assert 'sdata:isDeleted="true"' in payload


@pytest.mark.parametrize("character", ["\x00", "\x0b", "\x1f", "\ufffe", "\uffff", "\ud800"])
def test_what_xml_forbids_is_an_error_that_says_where(character):
    with pytest.raises(UnrepresentableText, match=rf"U\+{ord(character):04X} \(at position 2\)"):
        escape(f"ab{character}c")


def test_unknown_elements_are_sent_on_as_they_came():
    text = (
        '<account xmlns="urn:c" xmlns:q="urn:q"><name>x</name><q:colour shade="dark">blue<b/>ish</q:colour>'
        "<!-- gone --></account>"
    )
    kept = [item.xml() for item in Payload.from_xml(text) if item.name == "colour"]
    assert kept == ['<q:colour xmlns:q="urn:q" shade="dark">blue<b xmlns="urn:c"></b>ish</q:colour>']
    [read] = read_sync_feed(io.BytesIO(feed(entry(["x", "y"], kept[0])))).entries()
    assert [item.xml() for item in read.payload if item.name == "colour"] == kept


def test_a_payload_that_is_kept_is_the_same_after_any_number_of_hops():
    payload = Payload.from_xml('<a xmlns="urn:c" z="1" b="2"><n>x</n></a>')
    text = payload.xml(uuid=UUIDS[0])
    assert f'sdata:uuid="{UUIDS[0]}"' in text
    assert Payload.from_xml(text).xml(uuid=UUIDS[0]) == text


def test_a_digest_entry_is_read_back():
    text = render_digest_entry(DIGEST, now=0)
    assert read_digest_entry(io.BytesIO(text.encode())).in_sync_with(DIGEST)
    root = ElementTree.fromstring(text.encode())
    assert root.findtext("atom:id", namespaces=NS) == f"{APP1}/$syncDigest"
    assert root.find("sdata:payload/sync:digest/sync:origin", NS).text == APP1


def test_results_are_read_back():
    result = Result(uuid=UUID(UUIDS[0]), state=STATE, status=409, message="Conflict", method="PUT", id=f"{APP1}('5')")
    text = render_result(result, title="t", element="account", namespace="urn:c")
    reader = read_result_feed(io.BytesIO(b"".join(render_feed([text], url=APP1, title="t", digest=DIGEST, now=0))))
    [read] = reader.entries()
    assert (read.uuid, read.status, read.message) == (UUID(UUIDS[0]), 409, "Conflict")
    assert reader.header.digest.in_sync_with(DIGEST)
    assert reader.next_url == ""


def test_a_state_is_read_back_with_a_user_that_needs_escaping():
    from lxml import etree

    from sdata_sync.atom.entry import render_state

    state = SyncState(endpoint=f"{APP1}?a&b", tick=0, stamp=-1, user='<O\'Neil & "sons">')
    wrapped = f'<x xmlns:sync="{NS["sync"]}">{render_state(state)}</x>'
    assert read_state(etree.fromstring(wrapped)[0], "x") == state


def test_tracking():
    root = ElementTree.fromstring(render_tracking(Tracking(phase="a & b", progress=120, polling_millis=0)).encode())
    assert {child.tag.rpartition("}")[2]: child.text for child in root} == {
        "phase": "a & b",
        "phaseDetail": None,
        "progress": "100.0",
        "elapsedSeconds": "0",
        "remainingSeconds": "0",
        "pollingMillis": "1",
    }
