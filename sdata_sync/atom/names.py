"""Name the namespaces, qualified names and media types."""

from functools import lru_cache
from typing import Final

ATOM: Final = "http://www.w3.org/2005/Atom"
SDATA: Final = "http://schemas.sage.com/sdata/2008/1"
SYNC: Final = "http://schemas.sage.com/sdata/sync/2008/1"
HTTP: Final = "http://schemas.sage.com/sdata/http/2008/1"
OPENSEARCH: Final = "http://a9.com/-/spec/opensearch/1.1/"
XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
SME: Final = "http://schemas.sage.com/sdata/sme/2007"
XS: Final = "http://www.w3.org/2001/XMLSchema"
#: The namespace of this implementation's extensions. Other implementations skip its elements.
OWN: Final = "urn:django-sdata-sync"
#: Beside a digest: the number of received entries that its origin has deferred.
WAITING: Final = f"{{{OWN}}}waiting"

MEDIA_TYPE: Final = "application/atom+xml"
FEED_TYPE: Final = "application/atom+xml; type=feed"
ENTRY_TYPE: Final = "application/atom+xml; type=entry"
XML_TYPE: Final = "application/xml"

#: The namespace declarations on the root element of a feed or entry.
DECLARATIONS: Final = (
    f'xmlns="{ATOM}" xmlns:sdata="{SDATA}" xmlns:sync="{SYNC}" xmlns:http="{HTTP}"'
    f' xmlns:opensearch="{OPENSEARCH}" xmlns:xsi="{XSI}" xmlns:dss="{OWN}"'
)
#: The namespace declarations of a payload that is a document of its own.
PAYLOAD_DECLARATIONS: Final = f' xmlns:sdata="{SDATA}" xmlns:xsi="{XSI}" xmlns:dss="{OWN}"'


UUID: Final = f"{{{SDATA}}}uuid"
LEFT_OUT: Final = f"{{{OWN}}}leftOut"
REFERRERS: Final = f"{{{OWN}}}referrers"
PART_OF: Final = f"{{{OWN}}}partOf"
#: In a digest: up to which tick the node that it is shown to has delivered its changes itself.
DELIVERED: Final = f"{{{OWN}}}delivered"
SCOPED: Final = f"{{{OWN}}}scoped"
WITHDRAWN: Final = f"{{{OWN}}}withdrawn"
REPLACED_BY: Final = f"{{{OWN}}}replacedBy"
NIL: Final = f"{{{XSI}}}nil"


# The cache is bounded because the tags come from peers.
@lru_cache(maxsize=4096)
def local_name(tag: str) -> str:
    """Return ``tag`` without its namespace."""
    return tag.rpartition("}")[2]


@lru_cache(maxsize=4096)
def namespace(tag: str) -> str:
    """Return the namespace of ``tag``, empty if it has none."""
    return tag[1:].partition("}")[0] if tag.startswith("{") else ""
