"""Reading: lenient in spelling, exact in content."""

import io

import pytest

from sdata_sync.atom.diagnosis import Diagnosis as Said
from sdata_sync.atom.diagnosis import SDataCode, Severity, read_diagnoses, render_diagnoses
from sdata_sync.atom.digest import read_digest_entry
from sdata_sync.atom.feed import SyncMode, read_result_feed, read_sync_feed
from sdata_sync.atom.text import format_stamp, parse_datetime, parse_stamp
from sdata_sync.core.state import MAX_TICK
from sdata_sync.exceptions import DoctypeForbidden, FeedError, NotXml, TooDeep

from ..wire import APP1, APP2, APP3, NS, SEED, UUIDS, digest_entry, digest_xml, entry_xml, feed_xml

SDATA, SYNC, ATOM = NS["sdata"], NS["sync"], NS["atom"]


def read(text: str | bytes):
    reader = read_sync_feed(io.BytesIO(text.encode() if isinstance(text, str) else text))
    return reader, list(reader.entries())


def properties(entry):
    return {item.name: item.text for item in entry.payload}


def one_entry(inner: str, *, namespaces="") -> str:
    return (
        f'<feed xmlns="{ATOM}" xmlns:sdata="{SDATA}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" {namespaces}>'
        f'<syncMode xmlns="{SYNC}">immediate</syncMode>{digest_xml((APP1, 7))}<entry>'
        f'<syncState xmlns="{SYNC}"><endpoint>{APP1}</endpoint><tick>6</tick><stamp>2008-10-30T18:13:39Z</stamp>'
        f"</syncState>{inner}</entry></feed>"
    )


class TestSeed:
    def test_header(self):
        reader, _ = read(SEED)
        assert reader.header.sync_mode is SyncMode.IMMEDIATE
        assert [(e.endpoint, e.tick, e.conflict_priority) for e in reader.header.digest] == [
            (APP1, 7, 1),
            (APP2, 10, 2),
            (APP3, 15, 3),
        ]
        assert reader.header.digest.origin == ""
        assert reader.next_url == ""

    def test_entry(self):
        _, [entry] = read(SEED)
        assert str(entry.uuid) == "c4411795-9943-4cf4-8705-51a74c9f0acc"
        assert (entry.state.endpoint, entry.state.tick) == (APP1, 6)
        assert format_stamp(entry.state.stamp) == "2008-10-30T18:13:39Z"
        assert not entry.is_deleted
        assert properties(entry) == {"name": "Chemical Brothers Inc."}


class TestSpellings:
    """Rulings 2, 3, 4, 8, 9 and 11."""

    @pytest.mark.parametrize(
        "payload",
        [
            f'<sdata:payload><account xmlns="urn:c" sdata:uuid="{UUIDS[0]}"><name>x</name></account></sdata:payload>',
            f'<sdata:payload sdata:uuid="{UUIDS[0]}"><account xmlns="urn:c"><name>x</name></account></sdata:payload>',
            f'<payload xmlns="" uuid="{UUIDS[0]}"><account><name>x</name></account></payload>',
            f'<account xmlns="urn:c" sdata:uuid="{UUIDS[0]}"><name>x</name></account>',
            f'<uuid xmlns="{SYNC}">{UUIDS[0]}</uuid><sdata:payload><account xmlns="urn:c"><name>x</name></account>'
            "</sdata:payload>",
            f'<sdata:payload><uuid xmlns="{SYNC}">{UUIDS[0]}</uuid><account xmlns="urn:c"><name>x</name></account>'
            "</sdata:payload>",
            f'<sdata:payload><account xmlns="urn:c" sdata:uuid="{UUIDS[0].upper()}"><name>x</name></account>'
            "</sdata:payload>",
        ],
    )
    def test_payload_and_uuid(self, payload):
        _, [entry] = read(one_entry(payload))
        assert str(entry.uuid) == UUIDS[0].lower()
        assert properties(entry) == {"name": "x"}

    @pytest.mark.parametrize(
        "flag", [f'xmlns:s="{SYNC}" s:isDeleted="true"', 'sdata:isDeleted="1"', 'isDeleted="TRUE"']
    )
    def test_deleted(self, flag):
        _, [entry] = read(
            one_entry(f'<sdata:payload><a xmlns="urn:c" sdata:uuid="{UUIDS[0]}" {flag}/></sdata:payload>')
        )
        assert entry.is_deleted

    def test_a_payload_may_be_missing_from_a_deletion(self):
        _, [entry] = read(one_entry(f'<sdata:payload sdata:uuid="{UUIDS[0]}" sdata:isDeleted="true"/>'))
        assert entry.is_deleted
        assert entry.payload is None

    @pytest.mark.parametrize("mode", ["CATCHUP", "CatchUp", "catchup", " catchUp "])
    def test_mode_whatever_its_case(self, mode):
        reader, _ = read(feed_xml(digest_xml((APP1, 7)), mode=mode))
        assert reader.header.sync_mode is SyncMode.CATCH_UP

    def test_mode_in_the_sdata_namespace(self):
        feed = feed_xml(digest_xml((APP1, 7))).replace(f'<syncMode xmlns="{SYNC}">', f'<syncMode xmlns="{SDATA}">')
        assert read(feed)[0].header.sync_mode is SyncMode.IMMEDIATE

    def test_a_byte_order_mark(self):
        assert len(read(b"\xef\xbb\xbf" + SEED.encode())[1]) == 1

    def test_other_encodings(self):
        text = one_entry(
            f'<sdata:payload><a xmlns="urn:c" sdata:uuid="{UUIDS[0]}"><name>Müller</name></a></sdata:payload>'
        )
        for encoding in ("utf-16", "iso-8859-1", "windows-1252"):
            document = f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding)
            assert properties(read(document)[1][0]) == {"name": "Müller"}

    def test_unknown_elements_are_skipped(self):
        feed = one_entry(
            f'<x:odd xmlns:x="urn:x"/><sdata:payload><a xmlns="urn:c" sdata:uuid="{UUIDS[0]}"/></sdata:payload>'
        )
        # An element of a foreign namespace beside the payload is not taken for the resource.
        _, [entry] = read(feed)
        assert entry.payload.name == "a"

    def test_null_and_blank_are_kept_apart(self):
        _, [entry] = read(
            one_entry(
                f'<sdata:payload><a xmlns="urn:c" sdata:uuid="{UUIDS[0]}"><n xsi:nil="true"/><b/><z xsi:nil="1"/>'
                f'<f xsi:nil="false">x</f></a></sdata:payload>'
            )
        )
        assert properties(entry) == {"n": None, "b": "", "z": None, "f": "x"}

    def test_text_around_comments_and_cdata(self):
        _, [entry] = read(
            one_entry(
                f'<sdata:payload><a xmlns="urn:c" sdata:uuid="{UUIDS[0]}"><n>one<!-- no -->two<?no no?> &amp; '
                "<![CDATA[<three>]]></n></a></sdata:payload>"
            )
        )
        assert properties(entry) == {"n": "onetwo & <three>"}

    def test_a_contract_with_an_element_called_entry(self):
        _, entries = read(
            one_entry(
                f'<sdata:payload><entry sdata:uuid="{UUIDS[0]}"><name>ledger</name></entry></sdata:payload>',
            )
        )
        assert [properties(entry) for entry in entries] == [{"name": "ledger"}]

    def test_a_digest_behind_the_entries(self):
        feed = (
            f'<feed xmlns="{ATOM}" xmlns:sdata="{SDATA}"><syncMode xmlns="{SYNC}">catchUp</syncMode>'
            f"{entry_xml(UUIDS[0], APP1, 6)}{entry_xml(UUIDS[1], APP1, 7)}{digest_xml((APP1, 8))}"
            '<link rel="next" href="more"/></feed>'
        )
        reader, entries = read(feed)
        assert reader.header.digest.tick(APP1) == 8
        assert [entry.state.tick for entry in entries] == [6, 7]
        assert reader.next_url == "more"

    def test_a_next_link_is_found_behind_the_entries(self):
        feed = feed_xml(digest_xml((APP1, 8)), entry_xml(UUIDS[0], APP1, 6), mode="catchUp")
        reader, _ = read(feed.replace("</feed>", '<link rel="next" href="more"/></feed>'))
        assert reader.next_url == "more"

    @pytest.mark.parametrize(
        "text",
        [
            digest_entry((APP1, 7)),
            digest_xml((APP1, 7)),
            f'<entry xmlns="{ATOM}">{digest_xml((APP1, 7))}</entry>',
            f"<entry>{digest_xml((APP1, 7)).replace(SYNC, '')}</entry>",
        ],
    )
    def test_a_digest_inside_or_beside_the_payload(self, text):
        assert read_digest_entry(io.BytesIO(text.encode())).tick(APP1) == 7

    def test_an_entry_with_an_empty_digest_asks_for_everything(self):
        assert len(read_digest_entry(io.BytesIO(f'<entry xmlns="{ATOM}"/>'.encode()))) == 0


class TestMistakes:
    @pytest.mark.parametrize(
        ("feed", "message"),
        [
            (feed_xml("", entry_xml(UUIDS[0], APP1, 6)), "Expected a digest"),
            (feed_xml(digest_xml((APP1, 7)), mode="sometimes"), "'sometimes'"),
            (
                SEED.replace('sdata:uuid="C4411795-9943-4cf4-8705-51A74C9F0ACC"', ""),
                "Expected a uuid on the payload of feed/entry[1]",
            ),
            (SEED.replace("C4411795-9943-4cf4-8705-51A74C9F0ACC", "nobody"), "'nobody'"),
            (SEED.replace("<tick>6</tick>", "<tick>six</tick>"), "'six'"),
            (SEED.replace("<tick>6</tick>", "<tick>٦</tick>"), "Expected an integer"),
            (SEED.replace("<tick>6</tick>", "<tick>-6</tick>"), "from 0 to"),
            (SEED.replace("<tick>6</tick>", f"<tick>{MAX_TICK + 1}</tick>"), "from 0 to"),
            (SEED.replace("<tick>6</tick>", f"<tick>{'9' * 5000}</tick>"), "Expected an integer"),
            (SEED.replace("<stamp>2008-10-30T18:13:39Z</stamp>", "<stamp>yesterday</stamp>"), "'yesterday'"),
            (
                f'<html xmlns="{ATOM}"/>',
                "Expected an Atom feed, received <{http://www.w3.org/2005/Atom}html>",
            ),
        ],
    )
    def test_say_what_was_expected_what_came_and_where(self, feed, message):
        with pytest.raises(FeedError) as caught:
            read(feed)
        assert message in str(caught.value)

    def test_a_missing_state(self):
        feed = feed_xml(digest_xml((APP1, 7)), "<entry><id>x</id></entry>")
        with pytest.raises(FeedError, match=r"Expected a syncState in feed/entry\[1\]"):
            read(feed)

    @pytest.mark.parametrize(
        "text", [b"", b"no xml", b"<feed>", b"\x00\x01\x02", b"<feed></feed><feed/>", b"\xff" * 90]
    )
    def test_what_is_not_xml(self, text):
        with pytest.raises(NotXml):
            read(text)

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "iso-8859-1"])
    def test_a_doctype_in_any_encoding(self, encoding):
        declared = "utf-16" if encoding.startswith("utf-16") else encoding
        text = f'<?xml version="1.0" encoding="{declared}"?><!-- x --><!DOCTYPE feed [<!ENTITY a "b">]><feed>&a;</feed>'
        raw = (b"\xff\xfe" if encoding == "utf-16-le" else b"") + text.encode(encoding)
        with pytest.raises(DoctypeForbidden):
            read(raw)

    def test_depth(self):
        def nested(levels):
            return one_entry(
                f'<sdata:payload><a xmlns="urn:c" sdata:uuid="{UUIDS[0]}">{"<x>" * levels}{"</x>" * levels}</a>'
                "</sdata:payload>"
            )

        assert len(read(nested(96))[1]) == 1  # with feed, entry, payload and a: 100
        with pytest.raises(TooDeep):
            read(nested(97))

    def test_depth_outside_of_entries(self):
        with pytest.raises(TooDeep):
            read(feed_xml(digest_xml((APP1, 7)) + "<x>" * 100 + "</x>" * 100))


class TestDates:
    @pytest.mark.parametrize(
        ("text", "same"),
        [
            ("2008-10-30T14:52:03.281Z", "2008-10-30T14:52:03.281Z"),
            ("2008-10-30T14:52:03", "2008-10-30T14:52:03Z"),
            ("2008-10-30T14:52:03+02:00", "2008-10-30T12:52:03Z"),
            ("2008-10-30T14:52:03-0330", "2008-10-30T18:22:03Z"),
            ("2008-10-30t14:52z", "2008-10-30T14:52:00Z"),
            ("2008-10-30", "2008-10-30T00:00:00Z"),
            ("2008-10", "2008-10-01T00:00:00Z"),
            ("2008", "2008-01-01T00:00:00Z"),
            ("2008-10-30T14:52:03.2819999Z", "2008-10-30T14:52:03.281Z"),
            ("2008-12-31T24:00:00Z", "2009-01-01T00:00:00Z"),
            ("  2008-10-30T14:52:03Z ", "2008-10-30T14:52:03Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
        ],
    )
    def test_any_w3c_form(self, text, same):
        assert format_stamp(parse_stamp(text)) == same

    @pytest.mark.parametrize(
        "text",
        ["", "yesterday", "2008-13-01", "2008-02-30T00:00:00Z", "2008-10-30T25:00:00Z", "20081030", "2008-10-30T14:52:03ZZ",
         "0001-01-01T00:00:00+05:00", "٢٠٠٨-10-30"],
    )  # fmt: skip
    def test_what_is_no_date(self, text):
        with pytest.raises(ValueError, match="expected a date"):
            parse_datetime(text)

    def test_a_stamp_past_the_calendar_is_still_written_as_a_date(self):
        assert format_stamp(10**18).startswith("9999-12-31T23:59:59")


class TestResults:
    def test_what_a_client_of_the_pages_sends(self):
        # SData sync 5.3: no digest, no sync state.
        feed = (
            f'<feed xmlns="{ATOM}" xmlns:http="{NS["http"]}" xmlns:sdata="{SDATA}"><id/><entry><id/>'
            "<http:httpStatus>200</http:httpStatus><http:httpMessage>OK</http:httpMessage></entry>"
            "<entry><http:httpStatus>409</http:httpStatus><sdata:diagnosis><sdata:severity>Error</sdata:severity>"
            "<sdata:sdataCode>Odd</sdata:sdataCode><sdata:message>no</sdata:message></sdata:diagnosis></entry></feed>"
        )
        reader = read_result_feed(io.BytesIO(feed.encode()))
        first, second = reader.entries()
        assert reader.header.digest is None
        assert (first.status, first.message) == (200, "OK")
        assert second.status == 409
        assert [d.message for d in second.diagnoses] == ["no"]

    def test_an_entry_without_a_status(self):
        reader = read_result_feed(io.BytesIO(f'<feed xmlns="{ATOM}"><entry/></feed>'.encode()))
        with pytest.raises(FeedError, match="Expected an HTTP status"):
            list(reader.entries())


class TestDiagnoses:
    def test_round_trip(self):
        said = Said(message="<no>\x00", severity=Severity.TRANSIENT, application_code="Busy", payload_path="a/b")
        [read_back] = read_diagnoses(io.BytesIO(render_diagnoses([said]).encode()))
        assert read_back == Said(
            message="<no>\N{REPLACEMENT CHARACTER}",
            severity=Severity.TRANSIENT,
            sdata_code=SDataCode.APPLICATION_DIAGNOSIS,
            application_code="Busy",
            payload_path="a/b",
        )

    def test_what_is_no_diagnosis_says_nothing(self):
        assert read_diagnoses(io.BytesIO(b"<html><body>Bad Gateway</body></html>")) == []
        assert read_diagnoses(io.BytesIO(b"Bad Gateway")) == []
