"""What of a model travels, and how it becomes a payload and a row again."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar
from urllib.parse import quote

from django.core.exceptions import FieldDoesNotExist
from django.db import models, router

from .atom.payload import Payload, PayloadTemplate, Text
from .conf import conf
from .conflicts import Conflict, Decision
from .exceptions import PayloadError
from .textual import TextualForm, textual_form


def camel_case(name: str) -> str:
    """Turn ``credit_limit`` or ``SalesOrder`` into ``creditLimit`` and ``salesOrder``."""
    first, *rest = name.split("_")
    return first[:1].lower() + first[1:] + "".join(word[:1].upper() + word[1:] for word in rest)


def plural(noun: str) -> str:
    """Return the English plural of a regular noun."""
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "z", "ch", "sh")) else f"{noun}s"


@dataclass(frozen=True, slots=True)
class ResourceProperty:
    """One property of a payload: its element's ``name``, the model ``field``, and how its values are written."""

    name: str
    field: "models.Field[Any, Any]"
    form: TextualForm

    def read(self, text: Text) -> Any:
        """Return the value that ``text`` stands for.

        Raises:
            ValueError: with what was expected and what came.
        """
        if text is not None:
            return self.form.to_python(text)
        if isinstance(self.field, models.JSONField) and not self.field.null:
            return models.Value(None, self.field)  # the JSON null, where the column takes no SQL null
        return None


class SyncResource:
    """Says which part of a model is shared, and under which names; subclass it and ``register`` it.

    Every attribute has a default.
    """

    #: The kind in the URL; default: the plural of the model's name, lowerCamelCase.
    path: ClassVar[str] = ""
    #: The payload's element; default: the model's name, lowerCamelCase.
    element: ClassVar[str] = ""
    #: The contract's namespace.
    namespace: ClassVar[str] = "http://schemas.sage.com/myContract"
    #: Names of model fields; default: every concrete field but the primary key.
    fields: ClassVar[Sequence[str] | None] = None
    #: 1 to 9, the lower number wins a conflict; default: the setting's.
    conflict_priority: ClassVar[int | None] = None
    #: Kinds with a lower number are synchronised first; default: after what its foreign keys point to.
    order: ClassVar[int | None] = None

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model
        name = camel_case(model.__name__)
        self.kind = self.path or plural(name)
        self.element_name = self.element or name
        self._tags: dict[str, dict[str, ResourceProperty]] = {}

    def resolve(self, conflict: Conflict) -> Decision:
        """Decide a conflict otherwise than the rules of the protocol do.

        Return ``"local"`` or ``"remote"``, or a mapping of column names to values: a merged version, written over
        the local one. What differs from the rules is recorded as a change of this node, so that all others learn
        it. ``None`` leaves it to the rules. Called in the transaction of the page; it must not write.
        """
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kind} of {self.model._meta.label}>"

    @property
    def endpoint(self) -> str:
        """The URL of this collection at this node: its identity."""
        return f"{conf.base_url}/{self.kind}"

    @property
    def priority(self) -> int:
        """The conflict priority in force."""
        return conf.conflict_priority if self.conflict_priority is None else self.conflict_priority

    @property
    def database(self) -> str:
        """The alias of the database that holds the rows, and with them their tracking."""
        return router.db_for_write(self.model)

    @cached_property
    def model_fields(self) -> "list[models.Field[Any, Any]]":
        """The model's fields that travel.

        Raises:
            FieldDoesNotExist: ``fields`` names one that the model does not have.
        """
        meta = self.model._meta
        if self.fields is None:
            parent_links = set(meta.parents.values())
            return [
                field
                for field in meta.concrete_fields
                if not field.primary_key and field not in parent_links and not getattr(field, "generated", False)
            ]
        chosen = [meta.get_field(name) for name in self.fields]
        for field in chosen:
            if not isinstance(field, models.Field) or not field.concrete:
                raise FieldDoesNotExist(f"{meta.label}.{field.name} is not a column of the model's table.")
        return chosen  # type: ignore[return-value]

    @cached_property
    def properties(self) -> tuple[ResourceProperty, ...]:
        """The properties of the payload, in their order; what has no textual form is left to the checks."""
        return tuple(
            ResourceProperty(camel_case(field.name), field, form)
            for field in self.model_fields
            if not field.is_relation and (form := textual_form(field)) is not None
        )

    def _by_tag(self, namespace: str) -> dict[str, ResourceProperty]:
        """Return the properties by the tags that their elements may have in a payload of ``namespace``."""
        known = self._tags.get(namespace)
        if known is None:
            spaces = (f"{{{namespace}}}" if namespace else "", f"{{{self.namespace}}}", "")
            known = {f"{space}{prop.name}": prop for space in spaces for prop in self.properties}
            if len(self._tags) < 100:  # namespaces come from peers
                self._tags[namespace] = known
        return known

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names to select, in the order of the properties."""
        return tuple(prop.field.attname for prop in self.properties)

    @cached_property
    def template(self) -> PayloadTemplate:
        """What writes this kind's payloads."""
        return PayloadTemplate.of(self.element_name, self.namespace, tuple(prop.name for prop in self.properties))

    def rows(self) -> "models.QuerySet[Any]":
        """Return all rows, past the model's managers: they may hide some, or capture what is written."""
        return models.QuerySet(self.model, using=self.database)

    def resource_url(self, key: str) -> str:
        """Return the URL of the resource with the local key ``key`` (SData core 2.7)."""
        return f"{self.endpoint}('{_quoted(key)}')"

    def operation_url(self, role: str, tracking_id: str) -> str:
        """Return the URL of the operation ``tracking_id`` of ``$syncSource`` or ``$syncTarget`` (SData sync 4.1)."""
        return f"{self.endpoint}/${role}('{_quoted(tracking_id)}')"

    def texts(self, values: Iterable[Any]) -> list[Text]:
        """Return the properties' texts for column ``values`` in the order of ``columns``; a null is ``None``."""
        return [
            None if value is None else prop.form.to_text(value)
            for prop, value in zip(self.properties, values, strict=True)
        ]

    def texts_of(self, instance: models.Model) -> list[Text]:
        """Return the properties' texts for an instance."""
        return self.texts(_plain(instance.__dict__.get(name, getattr(instance, name))) for name in self.columns)

    @staticmethod
    def etag(texts: Sequence[Text], extra: str = "") -> str:
        """Return a hash of a resource's content: its texts, and what of its payload is kept as it came."""
        # Neither separator can be in a text that XML holds.
        content = "\x03".join(["\x01" if text is None else text for text in texts])
        return blake2b(f"{content}\x02{extra}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def read_payload(self, payload: Payload) -> tuple[dict[str, Any], str]:
        """Return the values by column name, and the XML of the elements that this node does not know.

        Properties that the payload lacks are absent from the values.

        Raises:
            PayloadError: an element is not what the field takes.
        """
        if payload.name.lower() != self.element_name.lower():
            raise PayloadError(f"Expected a payload of <{self.element_name}>, received <{payload.name}>.")
        values: dict[str, Any] = {}
        unknown: list[str] = []
        known = self._by_tag(payload.namespace)
        for item in payload:
            prop = known.get(item.tag)
            if prop is None:
                unknown.append(item.xml())
                continue
            path = f"{self.element_name}/{item.name}"
            if not item.is_plain:
                raise PayloadError(f"In {path}: expected text, received elements.", payload_path=path)
            try:
                values[prop.field.attname] = prop.read(item.text)
            except ValueError as error:
                raise PayloadError(f"In {path}: {error}.", payload_path=path) from error
        return values, "".join(unknown)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, models.Value) else value


def _quoted(key: str) -> str:
    if key.isascii() and key.isalnum():
        return key
    return quote(key.replace("'", "''"), safe="':@,;+")
