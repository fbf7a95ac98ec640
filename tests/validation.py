"""Every XML document that the tests produce is looked at: the rules of Atom, the schemas of SData, our own schema.

As middleware: it sees what every server answers, and what our own client asks.
"""

from copy import deepcopy
from functools import cache
from pathlib import Path
from uuid import UUID

from lxml import etree

ATOM = "{http://www.w3.org/2005/Atom}"
SDATA = "http://schemas.sage.com/sdata/2008/1"
SYNC = "http://schemas.sage.com/sdata/sync/2008/1"
HTTP = "http://schemas.sage.com/sdata/http/2008/1"
_FILES = {SDATA: "sdata.xsd", SYNC: "sync.xsd", HTTP: "http.xsd"}
#: Elements of these namespaces that stand alone; what is inside of them is checked with them.
_WHOLE = {"digest", "syncState", "syncMode", "diagnosis", "diagnoses", "tracking", "payload"}


class Invalid(AssertionError):
    """A document is not what it ought to be."""


@cache
def schema(namespace):
    return etree.XMLSchema(etree.parse(str(Path(__file__).parent / "schemas" / _FILES[namespace])))


def check_document(content: bytes) -> str:
    """Check one document, and return what it is."""
    root = etree.fromstring(content)
    if root.tag == "{http://www.w3.org/2001/XMLSchema}schema":
        etree.XMLSchema(root)
        return "schema"
    if root.tag in (f"{ATOM}feed", f"{ATOM}entry"):
        check_atom(root)
    elif etree.QName(root).namespace != SDATA:
        raise Invalid(f"What is a <{root.tag}>?")
    for element in root.iter(etree.Element):
        check_element(element)
    return etree.QName(root).localname


def check_atom(root):
    """RFC 4287: what must be there once, what a feed's entries inherit, what must not be empty."""
    for element in [root, *root.findall(f"{ATOM}entry")]:
        for name in ("id", "title", "updated"):
            if len(element.findall(f"{ATOM}{name}")) != 1:
                raise Invalid(f"Expected one {name} in <{element.tag}>: {etree.tostring(element)[:500]!r}")
        if not element.findtext(f"{ATOM}id"):
            raise Invalid(f"An empty id: {etree.tostring(element)[:500]!r}")
        if element.tag == f"{ATOM}entry" and element.find(f"{ATOM}content") is None:
            raise Invalid(f"An entry without content or a link: {etree.tostring(element)[:500]!r}")
        for link in element.findall(f"{ATOM}link"):
            if not link.get("href"):
                raise Invalid("A link that leads nowhere")
    if root.tag == f"{ATOM}feed" and root.find(f"{ATOM}author") is None:
        raise Invalid("A feed without an author")
    after_entries = [child.tag for child in root[list(root).index(root.find(f"{ATOM}entry")) :]] if len(
        root.findall(f"{ATOM}entry")) else []  # fmt: skip
    if any(tag != f"{ATOM}entry" for tag in after_entries):
        raise Invalid("What describes the feed must come before its entries")


def check_element(element):
    name = etree.QName(element)
    if name.namespace in _FILES and (name.localname in _WHOLE or name.namespace == HTTP):
        if name.namespace == SYNC or name.localname != "payload":
            valid(schema(name.namespace), element)
        else:
            check_payload(element)
    for attribute, value in element.attrib.items():
        if attribute == f"{{{SDATA}}}uuid":
            UUID(value)
        elif attribute in (f"{{{SDATA}}}isDeleted", f"{{{SDATA}}}deleteMissing") and value not in ("true", "false"):
            raise Invalid(f"{attribute} is {value!r}")


def valid(xsd, element):
    alone = deepcopy(element)
    alone.tail = None
    if not xsd.validate(alone):
        raise Invalid(f"{xsd.error_log}: {etree.tostring(alone)[:1000]!r}")


def check_payload(wrapper):
    if len(wrapper) != 1:
        raise Invalid(f"Expected one element in a payload: {etree.tostring(wrapper)[:500]!r}")
    resource_element = deepcopy(wrapper[0])
    name = etree.QName(resource_element)
    ours = contracts().get(name.namespace)
    if ours is None:
        return
    known, xsd = ours
    drop_unknown(resource_element, known)
    if not xsd.validate(resource_element) and not is_deferred(resource_element):
        raise Invalid(f"{xsd.error_log}: {etree.tostring(resource_element)[:1000]!r}")


def drop_unknown(element, known):
    """Elements that a node does not know are sent on as they came; its schema cannot know them either."""
    for child in list(element):
        if etree.QName(child).namespace != etree.QName(element).namespace or etree.QName(child).localname not in known:
            element.remove(child)
        else:
            drop_unknown(child, known)


def is_deferred(element):
    """What cannot be applied is sent on as it came, whatever is wrong with it."""
    from sdata_sync.models import DeferredEntry

    return DeferredEntry.objects.filter(resource__uuid=element.get(f"{{{SDATA}}}uuid")).exists()


_contracts = {}


def contracts():
    """The names that each contract's namespace has, and its schema, as it is published now."""
    from sdata_sync.api.views.schema import render_schema
    from sdata_sync.registry import registry

    present = tuple(registry)
    if _contracts.get("of") != present:
        found = {}
        for namespace in {resource.namespace for resource in present}:
            root = etree.fromstring(render_schema(namespace))
            for imported in root.findall("{http://www.w3.org/2001/XMLSchema}import"):
                root.remove(imported)
            names = {element.get("name") for element in root.iter("{http://www.w3.org/2001/XMLSchema}element")}
            try:
                found[namespace] = (names, etree.XMLSchema(root))
            except etree.XMLSchemaParseError:  # it refers to another contract's
                continue
        _contracts.update(of=present, found=found)
    return _contracts["found"]


class ValidatingMiddleware:
    """Checks every document that is answered, and those that our own client sends."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        if request.headers.get("User-Agent") == "django-sdata-sync" and request.method in ("POST", "PUT"):
            check_document(request.body)
        response = self.get_response(request)
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        if kind in ("application/atom+xml", "application/xml") and response.status_code != 304:
            check_document(response.content)
        return response
