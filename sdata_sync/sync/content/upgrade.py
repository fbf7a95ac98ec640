"""Write stored unknown elements into columns that an upgrade of the models has added."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.db import models, transaction

from ...atom.names import PAYLOAD_DECLARATIONS
from ...atom.payload import Payload
from ...exceptions import PayloadError
from ...relations import Reading
from ..db.isolation import row_guard
from ..log.digests import lock_digest
from ..log.tracked import tracked_rows, update_tracked
from .pending import store_pending
from .resolve import ReferenceCache, prepare_row
from .rows import read_instances
from .writer import write_rows

if TYPE_CHECKING:
    from ...kind import Kind
    from ...models import TrackedResource

logger = logging.getLogger(__name__)

BATCH = 500


def adopt_known_elements(resource: Kind) -> int:
    """Write stored unknown elements that have a field now into the rows; return the number of rows.

    This is no change of the resources: the elements were part of their content before.
    """
    taken = 0
    last = 0
    rows = tracked_rows(resource).exclude(extra="").filter(local_key__isnull=False, is_deferred=False)
    while True:
        with transaction.atomic(using=resource.database):
            lock_digest(resource)
            batch = list(rows.filter(pk__gt=last).order_by("pk")[:BATCH])
            if not batch:
                return taken
            taken += take_over(resource, batch)
            last = batch[-1].pk


def take_over(resource: Kind, rows: Iterable[TrackedResource]) -> int:
    """Write the unknown elements of ``rows``, which are locked, into columns; return the number of rows written."""
    return sum(_take_over(resource, tracked) for tracked in rows if tracked.extra and tracked.local_key)


def _take_over(resource: Kind, tracked: TrackedResource) -> bool:
    reading = _reading(resource, tracked)
    key = tracked.local_key or ""
    instance = read_instances(resource, [key]).get(key)
    if reading is None or instance is None or not (reading.values or reading.related):
        return False
    if tracked.mark is not None:
        reading = _without_edited(resource, instance, reading)
    try:
        with row_guard(resource.database):
            change = prepare_row(resource, instance, reading, ReferenceCache())
            write_rows(resource, [change])
        error = change.error
    except PayloadError as raised:
        error = raised
    if error is not None:
        logger.warning("%s('%s'): stored elements cannot be written to the row: %s", resource.kind, key, error)
        return False
    tracked.extra = reading.extra
    if tracked.mark is None:  # the etag of an edited row is computed when the row gets its tick
        tracked.etag = resource.etag(change.texts, tracked.extra)
    update_tracked(resource.database, [tracked], with_marks=False)
    store_pending(resource, {tracked.pk: change.pending}, replaced=[])
    return True


def _without_edited(resource: Kind, instance: models.Model, reading: Reading) -> Reading:
    """Leave out columns that were edited since the upgrade, because the edit is newer than the stored element."""
    blank = resource.model()
    values = {name: value for name, value in reading.values.items() if getattr(instance, name) == getattr(blank, name)}
    columns = {relation.name: relation.columns for relation in resource.relations}
    related = {
        name: received
        for name, received in reading.related.items()
        if all(getattr(instance, column) is None for column in columns[name])
    }
    return Reading(values, reading.extra, related)


def _reading(resource: Kind, tracked: TrackedResource) -> Reading | None:
    name = resource.element_name
    document = f'<{name} xmlns="{resource.namespace}"{PAYLOAD_DECLARATIONS}>{tracked.extra}</{name}>'
    try:
        return resource.decode(Payload.from_xml(document))
    except PayloadError as error:
        logger.warning("%s %s: stored elements cannot be read: %s", resource.kind, tracked.uuid, error)
        return None
