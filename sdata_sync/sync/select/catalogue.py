"""Show resources to clients that open the URLs in feeds (SData core 2.1, 2.7; SData sync 1.3).

Reading a resource changes nothing: a row that has no uuid yet does not get one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import models

from ...atom.payload import Text, identity
from ...atom.text import escape_attribute, replace_forbidden
from ..content.contents import contents_of, keys_for, waiting_of
from ..content.rows import read_rows
from ..db.clock import now
from ..db.isolation import read_apart
from ..db.statements import chunks
from ..log.keys import key_text, key_value
from ..log.tracked import tracked_rows

if TYPE_CHECKING:
    from ...kind import Kind
    from ...models import TrackedResource


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """Hold one resource as clients see it; ``etag`` is a hash of its content, ``updated`` is in ms since 1970."""

    key: str
    uuid: UUID | None
    url: str
    payload: str
    etag: str
    updated: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Hold part of a collection.

    ``after`` is the cursor after which the next part begins, empty on the last part. ``total`` is the number of
    resources in all parts.
    """

    resources: list[Shown]
    after: str
    total: int


def section(kind: Kind, rows: models.QuerySet[Any], *, after: str, start_index: int, count: int) -> Section:
    """Return ``count`` of ``rows`` in the order of their keys, after the key ``after``.

    Without ``after`` the section begins at ``start_index``, which counts from 1.

    Raises:
        ValidationError: ``after`` is not a key of the model.
    """
    ordered = rows.order_by("pk")
    if after:
        begin = ordered.filter(pk__gt=key_value(kind.model._meta.pk, after))[: count + 1]
    else:
        begin = ordered[start_index - 1 : start_index + count]
    pk = kind.model._meta.pk
    keys = [key_text(pk, value) for value in begin.values_list("pk", flat=True)]
    shown = show(kind, keys[:count])
    return Section(
        resources=[shown[key] for key in keys[:count] if key in shown],
        after=keys[count - 1] if len(keys) > count else "",
        total=rows.count(),
    )


def linked_section(
    kind: Kind, scope: models.QuerySet[Any] | None, *, after: str, start_index: int, count: int, bare: bool
) -> Section:
    """Return ``count`` resources that have a uuid, in the order in which they got it.

    ``scope`` restricts the rows. The section begins after the cursor ``after`` or, without it, at ``start_index``,
    which counts from 1. With ``bare`` the resources are returned without their content.

    Raises:
        ValidationError: ``after`` is not a cursor of this list.
    """
    if after and not (after.isascii() and after.isdigit() and len(after) < 19):
        raise ValidationError(f"Expected the cursor of a next link, unchanged; received {after[:60]!r}.")
    linked = is_linked(tracked_rows(kind)).order_by("pk").values_list("pk", "local_key")
    begin, end = (0, count + 1) if after else (start_index - 1, start_index + count)
    if scope is None:
        rows = linked.filter(pk__gt=int(after)) if after else linked
        found, total = list(rows[begin:end]), linked.count()
    else:  # the keys of a whole scope do not fit into one statement
        pk = kind.model._meta.pk
        allowed = {key_text(pk, value) for value in scope.using(kind.database).values_list("pk", flat=True)}
        within = [row for row in linked.iterator(2000) if row[1] in allowed]
        found, total = [row for row in within if row[0] > int(after or 0)][begin:end], len(within)
    keys = [key for _, key in found[:count] if key is not None]
    shown = show(kind, keys, bare=bare)
    return Section(
        resources=[shown[key] for key in keys if key in shown],
        after=str(found[count - 1][0]) if len(found) > count else "",
        total=total,
    )


def is_linked(rows: models.QuerySet[TrackedResource]) -> models.QuerySet[TrackedResource]:
    """Filter ``rows`` to resources with a row and a uuid: sent or linked, not only marked."""
    return rows.filter(models.Q(tick__isnull=False) | models.Q(mark__isnull=True), local_key__isnull=False)


def show(kind: Kind, keys: Sequence[str], *, bare: bool = False) -> dict[str, Shown]:
    """Return the resources with the local ``keys`` that have a row; with ``bare`` without their content."""
    # A row that cannot be read is shown without its content.
    rows, unreadable = read_apart(kind.database, keys, lambda some: read_rows(kind, some))
    linked = _linked(kind, rows)
    waiting = waiting_of(kind, linked.values())
    contents, problems = read_apart(
        kind.database, list(rows), lambda some: contents_of(kind, {key: rows[key] for key in some}, waiting)
    )
    names = keys_for(kind, contents.values()) if kind.relations else {}
    shown = {}
    for key in [*rows, *unreadable]:
        texts = contents.get(key, [])
        tracked = linked.get(key)
        url = kind.resource_url(key)
        uuid = None if tracked is None else tracked.uuid
        attributes = _attributes(uuid, key, url)
        extra = "" if tracked is None else tracked.extra
        if bare or key in problems or key in unreadable:
            payload = kind.template.render_empty(attributes)
        else:
            payload = kind.render(attributes, _representable(texts), extra, names)
        updated = now() if tracked is None or tracked.tick is None else tracked.stamp
        etag = kind.etag(texts, extra)
        shown[key] = Shown(key=key, uuid=uuid, url=url, payload=payload, etag=etag, updated=updated)
    return shown


def _representable(texts: Iterable[Text]) -> list[Text]:
    return [None if text is None else replace_forbidden(text) for text in texts]


def _linked(kind: Kind, keys: Iterable[str]) -> Mapping[str, TrackedResource]:
    rows = is_linked(tracked_rows(kind))
    return {row.row_key: row for chunk in chunks(keys) for row in rows.filter(local_key__in=chunk)}


def _attributes(uuid: UUID | None, key: str, url: str) -> str:
    if uuid is not None:
        return identity(uuid=str(uuid), key=key, url=url)
    address = escape_attribute(url)
    return f' sdata:key="{escape_attribute(key)}" sdata:url="{address}" sdata:uri="{address}"'
