"""Text in XML: what must be escaped, and what cannot be written at all."""

import re

from ..exceptions import UnrepresentableText

# XML 1.0 has no way to write these, not even as a character reference.
_NOT_XML = "\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff"
_FORBIDDEN = re.compile(f"[{_NOT_XML}]")
# Most texts have none of either. A bare carriage return would be read back as a line feed.
_SPECIAL = re.compile(f"[&<>\r{_NOT_XML}]")


def escape(text: str) -> str:
    """Escape the content of an element; it is read back exactly.

    Raises:
        UnrepresentableText: the text has a character that XML forbids.
    """
    if _SPECIAL.search(text) is None:
        return text
    if (found := _FORBIDDEN.search(text)) is not None:
        raise UnrepresentableText(
            f"XML cannot hold the character U+{ord(found.group()):04X} (at position {found.start()})."
        )
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")


def escape_attribute(text: str) -> str:
    """Escape the value of an attribute in double quotes; it is read back exactly."""
    return escape(text).replace('"', "&quot;").replace("\n", "&#10;").replace("\t", "&#9;")


def is_representable(text: str) -> bool:
    """Tell whether XML can hold all of ``text``."""
    return _FORBIDDEN.search(text) is None


def replace_forbidden(text: str) -> str:
    """Return ``text`` for people to read: what XML forbids becomes U+FFFD."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
