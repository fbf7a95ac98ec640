"""Escape text for XML, and find the characters that XML cannot represent."""

import re

from ..exceptions import UnrepresentableText

# XML 1.0 cannot represent these characters, not even as character references.
_NOT_XML = "\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff"
_FORBIDDEN = re.compile(f"[{_NOT_XML}]")
# Most texts match neither expression. An unescaped carriage return would be read back as a line feed.
_SPECIAL = re.compile(f"[&<>\r{_NOT_XML}]")


def escape(text: str) -> str:
    """Escape the content of an element so that it is read back exactly.

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
    """Escape the value of an attribute in double quotes so that it is read back exactly.

    Raises:
        UnrepresentableText: the text has a character that XML forbids.
    """
    return escape(text).replace('"', "&quot;").replace("\n", "&#10;").replace("\t", "&#9;")


def is_representable(text: str) -> bool:
    """Return True if XML can represent every character of ``text``."""
    return _FORBIDDEN.search(text) is None


def replace_forbidden(text: str) -> str:
    """Return ``text`` with each character that XML forbids replaced by U+FFFD, for human readers."""
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
