"""What the other side of a wire would do: build feeds by hand, read answers with another parser."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from xml.etree import ElementTree

BASE = "http://www.example.com/sdata"
APP1 = f"{BASE}/myApp1/myContract/-/accounts"
APP2 = f"{BASE}/myApp2/myContract/-/accounts"
APP3 = f"{BASE}/sageApp3/test/-/accounts"
PATH = "/sdata/myApp2/myContract/-/accounts"
FEED = "application/atom+xml; type=feed"
ENTRY = "application/atom+xml; type=entry"
SEED = (Path(__file__).parent / "data" / "seed.xml").read_text()

NS = {
    "atom": "http://www.w3.org/2005/Atom",
    "sdata": "http://schemas.sage.com/sdata/2008/1",
    "sync": "http://schemas.sage.com/sdata/sync/2008/1",
    "http": "http://schemas.sage.com/sdata/http/2008/1",
}
#: A stamp that is later than those of this node, and not so late that it is not believed.
LATER = f"{date.today() + timedelta(days=1)}T00:00:00Z"
UUIDS = [f"C4411795-9943-4cf4-8705-0000000000{n:02}" for n in range(100)]


@dataclass
class Said:
    """One result entry or diagnosis as the other side reads it."""

    status: int
    message: str
    code: str
    path: str


def digest_xml(*entries, origin="") -> str:
    """``entries`` are (endpoint, tick) or (endpoint, tick, priority)."""
    inner = "".join(
        f"<digestEntry><endpoint>{endpoint}</endpoint><tick>{tick}</tick><stamp>2008-10-30T19:07:56Z</stamp>"
        f"<conflictPriority>{rest[0] if rest else 5}</conflictPriority></digestEntry>"
        for endpoint, tick, *rest in entries
    )
    origin = f"<origin>{origin}</origin>" if origin else ""
    return f'<digest xmlns="{NS["sync"]}">{origin}{inner}</digest>'


def digest_entry(*entries, origin="") -> str:
    return (
        f'<entry xmlns="{NS["atom"]}"><id/><title/><payload xmlns="{NS["sdata"]}">'
        f"{digest_xml(*entries, origin=origin)}</payload></entry>"
    )


def entry_xml(
    uuid,
    endpoint,
    tick,
    properties="",
    *,
    stamp="2008-10-30T18:13:39Z",
    deleted=False,
    user="",
    element="account",
    replaced_by="",
) -> str:
    user = f"<user>{user}</user>" if user else ""
    flag = ' sdata:isDeleted="true"' if deleted else ""
    if replaced_by:
        flag += f' xmlns:dss="urn:django-sdata-sync" dss:replacedBy="{replaced_by}"'
    return (
        f'<entry><id>{endpoint}</id><title/><content/><syncState xmlns="{NS["sync"]}"><endpoint>{endpoint}</endpoint>'
        f"<tick>{tick}</tick><stamp>{stamp}</stamp>{user}</syncState><sdata:payload>"
        f'<{element} xmlns="http://schemas.sage.com/myContract" sdata:uuid="{uuid}"{flag}>{properties}</{element}>'
        f"</sdata:payload></entry>"
    )


def feed_xml(digest, *entries, mode="immediate", next_url="") -> str:
    link = f'<link rel="next" href="{next_url}"/>' if next_url else ""
    return (
        f'<feed xmlns="{NS["atom"]}" xmlns:sdata="{NS["sdata"]}" '
        f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><title/><id/>{link}'
        f'<syncMode xmlns="{NS["sync"]}">{mode}</syncMode>{digest}{"".join(entries)}</feed>'
    )


def post(client, feed, path=PATH, content_type=FEED, **headers):
    return client.post(f"{path}/$syncTarget", data=feed, content_type=content_type, headers=headers)


def put_digest(client, *entries, path=PATH):
    response = client.put(f"{path}/$syncDigest", data=digest_entry(*entries), content_type=ENTRY)
    assert response.status_code == 200, response.content
    return response


def ticks(client, path=PATH) -> dict[str, int]:
    response = client.get(f"{path}/$syncDigest")
    assert response.status_code == 200, response.content
    return ticks_in(response.content)


def ticks_in(content) -> dict[str, int]:
    root = ElementTree.fromstring(content)
    return {
        entry.findtext("sync:endpoint", namespaces=NS): int(entry.findtext("sync:tick", namespaces=NS))
        for entry in root.iter(f"{{{NS['sync']}}}digestEntry")
    }


def results(response) -> list[Said]:
    assert response.status_code == 200, response.content
    root = ElementTree.fromstring(response.content)
    return [
        Said(
            int(entry.findtext("http:httpStatus", namespaces=NS)),
            entry.findtext("http:httpMessage", namespaces=NS),
            entry.findtext("sdata:diagnosis/sdata:applicationCode", "", NS),
            entry.findtext("sdata:diagnosis/sdata:payloadPath", "", NS),
        )
        for entry in root.findall("atom:entry", NS)
    ]


def diagnosis(response) -> tuple[str, str]:
    """The application code and the message of a response that refuses the whole request."""
    root = ElementTree.fromstring(response.content)
    assert root.tag == f"{{{NS['sdata']}}}diagnoses"
    found = root.find("sdata:diagnosis", NS)
    assert found.findtext("sdata:severity", namespaces=NS) in (
        "info",
        "warning",
        "transient",
        "error",
        "fatal",
    )
    return found.findtext("sdata:applicationCode", "", NS), found.findtext("sdata:message", "", NS)
