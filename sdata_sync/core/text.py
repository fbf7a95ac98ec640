"""Texts from other nodes: compared without case, and shown on one line."""

import re
from unicodedata import normalize

# Control characters, line and paragraph separators, and the characters that change the direction of the text around.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_SPACE = re.compile(r"[\t\n\v\f\r\u0085\u2028\u2029]+")


def fold(text: str) -> str:
    """Return the form in which texts are equal that differ in case, or in the way characters are composed.

    The result may be longer than ``text``.
    """
    if text.isascii():
        return text.lower()
    return normalize("NFC", normalize("NFC", text).casefold())


def one_line(text: str) -> str:
    """Return ``text`` on one line: line breaks become spaces, and other unseen characters U+FFFD.

    A text of a peer could otherwise begin a line of its own in a log, or move the cursor of a terminal.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", _SPACE.sub(" ", text))


def has_unseen(text: str) -> bool:
    """Return True if ``text`` has a character that ``one_line`` replaces."""
    return _UNSEEN.search(text) is not None
