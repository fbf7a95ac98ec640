"""Everything that this app raises on purpose.

::

    SyncError
    ├── DocumentError             a body that cannot be taken; answered with 400
    │   ├── NotXml
    │   ├── DoctypeForbidden
    │   ├── TooDeep
    │   ├── TooManyElements
    │   └── BodyTooLarge          answered with 413
    ├── FeedError                 well-formed, but not what the protocol asks for; answered with 400
    │   ├── FeedRefused           ticks that do not continue where this node stands
    │   ├── NotTrusted            the sender may not speak for the origin; answered with 403
    │   ├── TooMuch               a login has reached a limit; answered with 429
    │   │   ├── TooManyOperations
    │   │   └── TooManyWaiting
    │   └── OperationFailed       what an asynchronous call came to; answered as it would have been at once
    ├── PayloadError              one entry whose payload cannot become a row; the entry is deferred
    │   ├── OutOfPart             a version of a row that its sender may not have
    │   ├── MassDeletion          one of so many deletions that they wait for a confirmation
    │   ├── StampAhead            a version from the future, by this node's clock
    │   └── DeletionWaits         a deletion that would take along rows that its source may still have
    ├── UnrepresentableText       a value that no XML document can hold; the change is held back
    ├── LinkError                 a row that cannot get the uuid it is to have; answered with 409
    ├── RegistrationError         a resource that cannot be registered
    └── PeerError                 what a peer did wrong; the delivery tries again later
        ├── PeerUnreachable
        ├── PeerRefused           the peer answered 4xx or 5xx
        └── PeerMisbehaved        the peer answered something that cannot be understood

A conflict is none of these: it is an ordinary decision (``sdata_sync.core.decision``).
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from .core.text import one_line


class SyncError(Exception):
    """Something went wrong in the synchronisation."""

    #: Tells more than the ten ``sdataCode`` values of the specification can (SData core 3.10).
    application_code = "SyncError"

    def __init__(self, message: str = "") -> None:
        # On one line, because messages quote what other nodes have sent.
        super().__init__(one_line(message or (self.__doc__ or "").strip()))


class DocumentError(SyncError):
    """The body cannot be read."""

    application_code = "BadDocument"
    status = 400


class NotXml(DocumentError):
    """The body is not well-formed XML."""

    application_code = "NotXml"


class DoctypeForbidden(DocumentError):
    """The body has a DOCTYPE; documents with one are refused."""

    application_code = "DoctypeForbidden"


class TooDeep(DocumentError):
    """The elements of the body are nested too deeply."""

    application_code = "TooDeep"


class TooManyElements(DocumentError):
    """An entry of the body has too many elements."""

    application_code = "TooManyElements"


class BodyTooLarge(DocumentError):
    """The body is larger than this node accepts."""

    application_code = "BodyTooLarge"
    status = 413


class FeedError(SyncError):
    """The document is not what the protocol asks for."""

    application_code = "BadFeed"
    status = 400

    def __init__(self, message: str = "", *, payload_path: str = "") -> None:
        super().__init__(message)
        self.payload_path = payload_path


class FeedRefused(FeedError):
    """The ticks of the feed do not continue where this node stands."""

    def __init__(self, message: str, *, application_code: str, payload_path: str = "") -> None:
        super().__init__(message, payload_path=payload_path)
        self.application_code = application_code


class NotTrusted(FeedError):
    """The sender may not speak for the origin of the document."""

    application_code = "NotTrusted"
    status = 403


class TooMuch(FeedError):
    """A login has reached a limit; it may try again after ``retry_seconds``."""

    application_code = "TooMuch"
    status = 429
    retry_seconds = 60


class TooManyOperations(TooMuch):
    """The login has too many open operations."""

    application_code = "TooManyOperations"


class TooManyWaiting(TooMuch):
    """The sender has left too many deferred entries or conflicts."""

    application_code = "TooManyWaiting"
    retry_seconds = 600


class OperationFailed(FeedError):
    """The operation failed."""

    def __init__(self, message: str, *, application_code: str, status: int, payload_path: str = "") -> None:
        super().__init__(message, payload_path=payload_path)
        self.application_code = application_code
        self.status = status


class PayloadError(SyncError):
    """The payload of an entry cannot be applied."""

    application_code = "Deferred"
    #: The code for a row that is only withdrawn from this node's partial replica; a retry needs to know that.
    WITHDRAWN = "Withdrawn"
    #: The code for a row that would make the whole transaction fail at the commit.
    AT_COMMIT = "AtCommit"

    def __init__(
        self, message: str, *, payload_path: str = "", public: str = "", waits_for: Sequence[tuple[str, UUID]] = ()
    ) -> None:
        super().__init__(message)
        self.payload_path = payload_path
        #: The kinds and uuids of the resources that must be received first.
        self.waits_for = tuple(waits_for)
        #: The message for the sender; the exception's own message may contain internal details.
        self.public = one_line(public or message)


class DeletionWaits(PayloadError):
    """The deletion would take along rows that its source may still have."""

    application_code = "DeletionWaits"

    def __init__(self, message: str, *, condition: Any, public: str = "") -> None:
        super().__init__(message, public=public)
        #: The ``sdata_sync.sync.content.conditions.Condition`` that it waits for.
        self.condition = condition


class OutOfPart(PayloadError):
    """The version concerns a row that is not in the part of its sender; answered with 403."""

    application_code = "OutOfPart"

    def __init__(self, message: str = "It concerns a row that is not in the part of this login.") -> None:
        super().__init__(message, public="It concerns a row that is not in the part of this login.")


class MassDeletion(PayloadError):
    """The deletion is one of so many that it waits for a confirmation."""

    application_code = "MassDeletion"

    def __init__(self, message: str) -> None:
        super().__init__(message, public="It is one of many deletions, which wait for a confirmation.")


class StampAhead(PayloadError):
    """The stamp of the version is too far ahead of this node's clock."""

    application_code = "StampAhead"


class UnrepresentableText(SyncError):
    """A value has a character that no XML document can hold."""

    application_code = "UnrepresentableText"


class LinkError(SyncError):
    """The row cannot be linked."""

    application_code = "NotLinked"
    status = 409


class RegistrationError(SyncError):
    """The resource cannot be registered."""


class PeerError(SyncError):
    """The exchange with a peer failed."""


class PeerUnreachable(PeerError):
    """The peer does not answer."""


class PeerRefused(PeerError):
    """The peer refused the request."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class KindNotShared(PeerRefused):
    """The peer has no collection of this kind."""


class PeerMisbehaved(PeerError):
    """The peer's answer cannot be understood."""


class DeliveryInterrupted(PeerError):
    """The process ends, and the delivery stopped between two pages."""
