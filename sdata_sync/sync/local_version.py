"""The version of a resource that stands at this node, as decisions, records and applications see it."""

from __future__ import annotations

from typing import Any

from django.db import models

from ..atom.names import PAYLOAD_DECLARATIONS
from ..atom.payload import Text, identity
from ..atom.text import replace_forbidden
from ..models import DeferredEntry, TrackedResource
from ..resources import SyncResource
from .faults import ends_page
from .relations.contents import read_contents


class LocalVersion:
    """What stands here when a conflicting version comes: taken before that one touches the instance."""

    def __init__(self, resource: SyncResource, tracked: TrackedResource, instance: models.Model | None) -> None:
        #: Its values by column, for the application's ``resolve``; ``None`` if there is no row, or no ``resolve``.
        self.values: dict[str, Any] | None = None
        #: The texts of its properties and relations, ``None`` if there is no row or it cannot be encoded.
        self.contents: list[Text] | None = None
        self.payload = ""
        if tracked.is_deferred:
            waiting = DeferredEntry.objects.using(resource.database).filter(resource=tracked.pk).first()
            self.payload = waiting.payload if waiting is not None else ""
        elif instance is not None:
            if decides_itself(resource):
                self.values = {name: value_of(instance, name) for name in resource.columns}
            # By column: an attribute of the instance may be another type than the column's value.
            contents, _ = read_contents(resource, [tracked])
            self.contents = contents.get(tracked.local_key or "")
            texts = _readable_texts(resource, instance) if self.contents is None else self.contents
            self.payload = _shown_payload(resource, tracked, texts)


def decides_itself(resource: SyncResource) -> bool:
    """Return True if the application decides conflicts of this resource with its own ``resolve``."""
    return type(resource).resolve is not SyncResource.resolve


def value_of(instance: models.Model, name: str) -> Any:
    """Return an attribute of ``instance``, or what it stores under that name where a descriptor or property raises."""
    try:
        return getattr(instance, name)
    except Exception as error:
        if ends_page(error):
            raise
        return instance.__dict__.get(name)


def _readable_texts(resource: SyncResource, instance: models.Model) -> list[Text]:
    """Return the texts of a row that cannot be encoded as a whole; what cannot be encoded is ``None``."""
    texts: list[Text] = []
    for prop in resource.properties:
        value = instance.__dict__.get(prop.field.attname)
        try:
            texts.append(None if value is None else prop.form.to_text(value))
        except Exception as error:
            if ends_page(error):
                raise
            texts.append(None)
    return [*texts, *[None] * len(resource.relations)]


def _shown_payload(resource: SyncResource, tracked: TrackedResource, texts: list[Text]) -> str:
    try:
        return payload_of(resource, tracked, texts)
    except Exception as error:
        if ends_page(error):
            raise
        # Not empty: that would say that the version was a deletion.
        return resource.template.render_empty(f"{PAYLOAD_DECLARATIONS}{identity(uuid=str(tracked.uuid))}")


def payload_of(resource: SyncResource, tracked: TrackedResource, texts: list[Text]) -> str:
    """Return a version as an XML document of its own."""
    shown = [None if text is None else replace_forbidden(text) for text in texts]
    return resource.render(f"{PAYLOAD_DECLARATIONS}{identity(uuid=str(tracked.uuid))}", shown, tracked.extra)
