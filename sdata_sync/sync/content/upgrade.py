"""Write stored unknown elements into columns that an upgrade of the models has added."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.db import models

from ...atom.names import PAYLOAD_DECLARATIONS
from ...atom.payload import Payload
from ...exceptions import PayloadError
from ...relations import Reading
from ...turns import write_transaction
from ..db.isolation import row_guard
from ..log.digests import lock_digest
from ..log.tracked import tracked_rows, update_tracked
from .pending import store_pending
from .resolve import ReferenceCache, prepare_row
from .rows import read_instances
from .write.writer import write_rows

if TYPE_CHECKING:
    from ...kind import Kind
    from ...models import TrackedResource

logger = logging.getLogger(__name__)

BATCH = 500


def adopt_known_elements(kind: Kind) -> int:
    """Write stored unknown elements that have a field now into the rows; return the number of rows.

    This is no change of the resources: the elements were part of their content before.
    """
    taken = 0
    last = 0
    rows = tracked_rows(kind).exclude(extra="").filter(local_key__isnull=False, is_deferred=False)
    while True:
        with write_transaction(kind.database):
            lock_digest(kind)
            batch = list(rows.filter(pk__gt=last).order_by("pk")[:BATCH])
            if not batch:
                return taken
            taken += take_over(kind, batch)
            last = batch[-1].pk


def take_over(kind: Kind, rows: Iterable[TrackedResource]) -> int:
    """Write the unknown elements of ``rows``, which are locked, into columns; return the number of rows written."""
    return sum(_take_over(kind, tracked) for tracked in rows if tracked.extra and tracked.local_key is not None)


def _take_over(kind: Kind, tracked: TrackedResource) -> bool:
    reading = _reading(kind, tracked)
    key = tracked.row_key
    instance = read_instances(kind, [key]).get(key)
    if reading is None or instance is None or not (reading.values or reading.related):
        return False
    if tracked.mark is not None:
        reading = _without_edited(kind, instance, reading)
    try:
        with row_guard(kind.database):
            change = prepare_row(kind, instance, reading, ReferenceCache())
            write_rows(kind, [change])
        error = change.error
    except PayloadError as raised:
        error = raised
    if error is not None:
        logger.warning("%s('%s'): stored elements cannot be written to the row: %s", kind.name, key, error)
        return False
    tracked.extra = reading.extra
    if tracked.mark is None:  # the etag of an edited row is computed when the row gets its tick
        tracked.etag = kind.etag(change.texts, tracked.extra)
    update_tracked(kind.database, [tracked], with_marks=False)
    store_pending(kind, {tracked.pk: change.pending}, replaced=[])
    return True


def _without_edited(kind: Kind, instance: models.Model, reading: Reading) -> Reading:
    """Leave out columns that were edited since the upgrade, because the edit is newer than the stored element."""
    blank = kind.model()
    values = {name: value for name, value in reading.values.items() if getattr(instance, name) == getattr(blank, name)}
    columns = {relation.name: relation.columns for relation in kind.relations}
    related = {
        name: received
        for name, received in reading.related.items()
        if all(getattr(instance, column) is None for column in columns[name])
    }
    return Reading(values, reading.extra, related)


def _reading(kind: Kind, tracked: TrackedResource) -> Reading | None:
    name = kind.element_name
    document = f'<{name} xmlns="{kind.namespace}"{PAYLOAD_DECLARATIONS}>{tracked.extra}</{name}>'
    try:
        return kind.decode(Payload.from_xml(document))
    except PayloadError as error:
        logger.warning("%s %s: stored elements cannot be read: %s", kind.name, tracked.uuid, error)
        return None
