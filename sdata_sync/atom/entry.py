"""Read and write one entry of a sync feed (SData sync 4.4) or of a result feed (SData core 13.4)."""

from dataclasses import dataclass, field
from functools import lru_cache
from uuid import UUID

from lxml import etree

from ..core.state import MAX_TICK, SyncState
from ..core.text import one_line
from ..exceptions import FeedError
from . import names
from .diagnosis import Diagnosis, read_diagnosis
from .digest import read_endpoint, read_stamp, read_tick
from .payload import Payload, attribute, identity, is_true
from .text import escape, escape_attribute, format_stamp

_OF_ATOM = frozenset(
    ["title", "updated", "content", "link", "author", "category", "published", "summary", "rights", "source"]
)
_LONE_UUID = f"{{{names.SYNC}}}uuid"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """Hold one entry of a sync feed: the state of a resource after its last change, and its content.

    ``payload`` is ``None`` if the entry has none, as in most deletions. ``replaced_by`` is set if the uuid is an alias:
    it is the uuid under which the resource lives on. ``is_scoped`` is true if the resource was not changed but entered
    or left the partial replica of the receiver. ``is_withdrawn`` is true for a deletion that only removes the resource
    from the receiver's partial replica.
    """

    uuid: UUID
    state: SyncState
    is_deleted: bool
    payload: Payload | None
    id: str = ""
    replaced_by: UUID | None = None
    is_scoped: bool = False
    is_withdrawn: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """Hold the outcome of one received entry.

    ``status`` is 200 if the entry was applied or already contained, 202 if it was deferred, 403 if it is outside the
    sender's partial replica or trust, and 409 if it lost a conflict. ``method`` is POST, PUT or DELETE. ``location`` is
    the URL of a new resource.
    """

    uuid: UUID
    state: SyncState
    status: int
    message: str
    method: str
    id: str
    location: str = ""
    diagnoses: tuple[Diagnosis, ...] = field(default=())


def read_entry(element: etree._Element, number: int) -> Entry:
    """Read an ``entry`` element of a sync feed; ``number`` is its position in the feed, from 1.

    Raises:
        FeedError: the entry has no uuid or no sync state, or one of them is malformed.
    """
    path = f"feed/entry[{number}]"
    wrapper = state = atom_id = lone_uuid = bare = None
    is_deleted = False
    for child in element:
        match _role(child.tag):
            case "syncState":
                state = child
            case "payload":
                wrapper = child
            case "id":
                atom_id = child.text
            case "uuid":
                lone_uuid = child.text
            case "isDeleted":
                is_deleted = is_true(child.text)
            case "resource" if bare is None:
                bare = child
            case "unnamed" if bare is None and attribute(child, "uuid"):
                bare = child
    if state is None:
        raise FeedError(f"Expected a syncState in {path}, found none.", payload_path=f"{path}/syncState")
    resource = bare if wrapper is None else _resource(wrapper)
    holders = [holder for holder in (resource, wrapper) if holder is not None]
    uuid = _uuid(holders, lone_uuid, path)
    is_deleted = is_deleted or any(is_true(attribute(holder, "isDeleted")) for holder in holders)
    replaced_by = _replacement(holders) if is_deleted else None
    return Entry(
        uuid=uuid,
        state=read_state(state, f"{path}/syncState"),
        is_deleted=is_deleted,
        payload=None if resource is None else Payload(resource),
        id=(atom_id or "").strip(),
        replaced_by=None if replaced_by == uuid else replaced_by,
        is_scoped=any(is_true(holder.get(names.SCOPED)) for holder in holders),
        is_withdrawn=any(is_true(holder.get(names.WITHDRAWN)) for holder in holders),
    )


def _replacement(holders: list[etree._Element]) -> UUID | None:
    text = next((value for holder in holders if (value := holder.get(names.REPLACED_BY))), None)
    try:
        return UUID(text) if text else None
    except ValueError:  # read as a deletion without a replacement
        return None


@lru_cache(maxsize=4096)
def _role(tag: str) -> str:
    """Return the role of a child of an entry: its local name, or ``resource`` for the contract's element.

    ``unnamed`` is returned for an element that may be a contract's element without its namespace. The empty text is
    returned for an element that is skipped.
    """
    name, space = names.local_name(tag), names.namespace(tag)
    if name in ("syncState", "uuid", "isDeleted"):
        return name
    if space in (names.ATOM, names.SDATA, ""):
        if name in ("payload", "id"):
            return name
        return "" if name in _OF_ATOM or space == names.SDATA else "unnamed"
    return "" if space in (names.SYNC, names.HTTP, names.OPENSEARCH) else "resource"


def _resource(wrapper: etree._Element) -> etree._Element | None:
    return next((child for child in wrapper if child.tag != _LONE_UUID), None)


def _uuid(holders: list[etree._Element], lone: str | None, path: str) -> UUID:
    text = next((value for holder in holders if (value := attribute(holder, "uuid"))), None) or lone
    if text is None:
        inner = next((child.text for h in holders for child in h if child.tag == _LONE_UUID), None)
        text = inner
    if not text:
        raise FeedError(f"Expected a uuid on the payload of {path}, found none.", payload_path=f"{path}/payload")
    try:
        return UUID(text.strip())
    except ValueError as error:
        raise FeedError(
            f"Expected a uuid on the payload of {path}, received {text.strip()[:60]!r}.",
            payload_path=f"{path}/payload",
        ) from error


def read_state(element: etree._Element, path: str) -> SyncState:
    """Read a ``syncState`` element (SData sync 4.3).

    A missing stamp is read as 0, the beginning of 1970, so that the state is later than no other.

    Raises:
        FeedError: the endpoint or the tick is missing, or a value is malformed.
    """
    values = {names.local_name(child.tag): (child.text or "").strip() for child in element}
    tick = read_tick(values.get("tick", ""), f"{path}/tick")
    if tick > MAX_TICK:
        raise FeedError(
            f"Expected a tick from 0 to {MAX_TICK} in {path}, received {tick}.", payload_path=f"{path}/tick"
        )
    return SyncState(
        endpoint=read_endpoint(values.get("endpoint", ""), f"{path}/endpoint"),
        tick=tick,
        stamp=read_stamp(values["stamp"], f"{path}/stamp") if values.get("stamp") else 0,
        user=one_line(values.get("user", "")),
    )


def render_state(state: SyncState) -> str:
    """Return the ``sync:syncState`` element as text (SData sync 4.3)."""
    user = f"<sync:user>{escape(state.user)}</sync:user>" if state.user else ""
    return (
        f"<sync:syncState><sync:endpoint>{escape(state.endpoint)}</sync:endpoint><sync:tick>{state.tick}</sync:tick>"
        f"<sync:stamp>{format_stamp(state.stamp)}</sync:stamp>{user}</sync:syncState>"
    )


def render_entry(*, id: str, title: str, state: SyncState, payload: str) -> str:  # noqa: A002  Atom's own name
    """Return an ``entry`` of a sync feed; ``payload`` is the contract's element as text."""
    heading = escape(title)
    return (
        f"<entry><id>{escape(id)}</id><title>{heading}</title><updated>{format_stamp(state.stamp)}</updated>"
        f"<content>{heading}</content>{render_state(state)}<sdata:payload>{payload}</sdata:payload></entry>"
    )


def render_resource(*, id: str, title: str, updated: int, payload: str, etag: str = "", alone: bool = False) -> str:  # noqa: A002
    """Return an ``entry`` that shows a resource without a sync state; ``updated`` is in milliseconds.

    ``payload`` is the contract's element as text. With ``alone=True`` the entry is a complete document.
    """
    heading = escape(title)
    tag = f"<http:etag>{escape(etag)}</http:etag>" if etag else ""
    link = f'<link rel="self" type="{names.ENTRY_TYPE}" title="Refresh" href="{escape_attribute(id)}"/>'
    entry = (
        f"<id>{escape(id)}</id><title>{heading}</title><updated>{format_stamp(updated)}</updated>{link}"
        f"<content>{heading}</content>{tag}<sdata:payload>{payload}</sdata:payload></entry>"
    )
    if alone:
        return f'<?xml version="1.0" encoding="utf-8"?>\n<entry {names.DECLARATIONS}>{entry}'
    return f"<entry>{entry}"


def render_result(result: Result, *, title: str, element: str, namespace: str) -> str:
    """Return an ``entry`` of a result feed, with the identity of the resource and without its content."""
    heading = escape(title)
    location = f"<http:location>{escape(result.location)}</http:location>" if result.location else ""
    said = "".join(diagnosis.render() for diagnosis in result.diagnoses)
    return (
        f"<entry><id>{escape(result.id)}</id><title>{heading}</title>"
        f"<updated>{format_stamp(result.state.stamp)}</updated><content>{heading}</content>"
        f"<http:httpStatus>{result.status}</http:httpStatus><http:httpMessage>{escape(result.message)}</http:httpMessage>"
        f"<http:httpMethod>{result.method}</http:httpMethod>{location}{said}{render_state(result.state)}"
        f'<sdata:payload><{element} xmlns="{escape_attribute(namespace)}"{identity(uuid=str(result.uuid))}/>'
        f"</sdata:payload></entry>"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedResult:
    """Hold the outcome that a peer reports for one entry; ``uuid`` is ``None`` if it names no resource."""

    uuid: UUID | None
    status: int
    message: str
    diagnoses: tuple[Diagnosis, ...]


def read_result(element: etree._Element, number: int) -> ReceivedResult:
    """Read an ``entry`` element of a result feed; ``number`` is its position in the feed, from 1.

    Raises:
        FeedError: the entry has no HTTP status of three digits, or its status is malformed.
    """
    values = {names.local_name(child.tag): (child.text or "").strip() for child in element}
    status = values.get("httpStatus", "")
    if not (status.isascii() and status.isdigit() and len(status) == 3):
        path = f"feed/entry[{number}]/httpStatus"
        raise FeedError(f"Expected an HTTP status in {path}, received {status[:40]!r}.", payload_path=path)
    wrapper = next((child for child in element if names.local_name(child.tag) == "payload"), None)
    text = None if wrapper is None else next((u for h in [*wrapper, wrapper] if (u := attribute(h, "uuid"))), None)
    try:
        uuid = UUID(text.strip()) if text else None
    except ValueError:
        uuid = None
    return ReceivedResult(
        uuid=uuid,
        status=int(status),
        message=one_line(values.get("httpMessage", "")),
        diagnoses=tuple(read_diagnosis(child) for child in element if names.local_name(child.tag) == "diagnosis"),
    )
