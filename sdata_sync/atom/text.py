"""Values as XML text: stamps as W3C date-times, and texts with the characters escaped that XML needs or forbids.

A stamp counts whole milliseconds since 1970-01-01T00:00Z.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from ..exceptions import UnrepresentableText

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LATEST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_EARLIEST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND

# The forms of the W3C note on dates and of xsd:dateTime: from a year alone to any number of fraction digits.
_W3C = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:[Tt ](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?)?"
    r"\s*(?P<zone>[Zz]|[+-]\d\d:?\d\d)?)?)?)?",
    re.ASCII,
)

# XML 1.0 cannot represent these characters, not even as character references.
_NOT_XML = "\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff"
_FORBIDDEN = re.compile(f"[{_NOT_XML}]")
# Most texts match neither expression. An unescaped carriage return would be read back as a line feed.
_SPECIAL = re.compile(f"[&<>\r{_NOT_XML}]")


def parse_datetime(text: str) -> datetime:
    """Read a date-time in any W3C form as an aware ``datetime``; without a zone it is UTC.

    Raises:
        ValueError: ``text`` is not a W3C date-time.
    """
    if text[-1:] == "Z" and text[10:11] == "T" and len(text) in (20, 24):  # the most frequent form
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass  # the error below names the expected form
    match = _W3C.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected a date like 2008-10-30T14:52:03.281Z, received {text.strip()!r}")
    part = match.groupdict()
    micros = int((part["fraction"] or "0")[:6].ljust(6, "0"))
    days = 0
    hour = int(part["hour"] or 0)
    if hour == 24 and not int(part["minute"]) and not int(part["second"] or 0) and not micros:
        hour, days = 0, 1  # xsd:dateTime allows 24:00:00 for the end of a day
    try:
        naive = datetime(
            int(part["year"]),
            int(part["month"] or 1),
            int(part["day"] or 1),
            hour,
            int(part["minute"] or 0),
            int(part["second"] or 0),
            micros,
        )
        return (naive + timedelta(days=days) - _offset(part["zone"])).replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"expected a date like 2008-10-30T14:52:03.281Z, received {text.strip()!r}") from error


def _offset(zone: str | None) -> timedelta:
    if zone is None or zone in "Zz":
        return timedelta()
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return timedelta(minutes=-minutes if zone[0] == "-" else minutes)


def parse_stamp(text: str) -> int:
    """Read a date-time in any W3C form as a stamp, in milliseconds since 1970.

    Raises:
        ValueError: ``text`` is not a W3C date-time.
    """
    return (parse_datetime(text) - _EPOCH) // _MILLISECOND


# Cached: changes of one transaction have the same stamp, and an entry holds its stamp twice.
@lru_cache(maxsize=1024)
def format_stamp(stamp: int) -> str:
    """Write a stamp, in milliseconds since 1970, in UTC with ``Z`` and at most three fraction digits.

    Some clients drop a feed that has a date in another form.
    """
    stamp = min(max(stamp, _EARLIEST), _LATEST)
    moment = _EPOCH + timedelta(milliseconds=stamp)
    text = moment.isoformat()[:19]
    return f"{text}.{stamp % 1000:03}Z" if stamp % 1000 else f"{text}Z"


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
