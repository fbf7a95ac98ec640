"""Read and write the tracking payload: the progress of an asynchronous operation (SData core 3.11)."""

from dataclasses import dataclass
from typing import BinaryIO

from ..exceptions import DocumentError
from . import names
from .document import read_root
from .text import escape


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracking:
    """Hold the body of a 202 response.

    ``progress`` is in percent. ``polling_millis`` is the time in milliseconds after which the client asks again.
    """

    phase: str
    phase_detail: str = ""
    progress: float = 0.0
    elapsed_seconds: int = 0
    remaining_seconds: int = 0
    polling_millis: int = 500


def render_tracking(tracking: Tracking) -> str:
    """Return the tracking document.

    The polling interval is always at least 1 ms: some clients divide by it or poll without a pause.
    """
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<tracking xmlns="{names.SDATA}">'
        f"<phase>{escape(tracking.phase)}</phase><phaseDetail>{escape(tracking.phase_detail)}</phaseDetail>"
        f"<progress>{min(max(tracking.progress, 0.0), 100.0):.1f}</progress>"
        f"<elapsedSeconds>{max(tracking.elapsed_seconds, 0)}</elapsedSeconds>"
        f"<remainingSeconds>{max(tracking.remaining_seconds, 0)}</remainingSeconds>"
        f"<pollingMillis>{max(tracking.polling_millis, 1)}</pollingMillis></tracking>"
    )


def read_polling_millis(file: BinaryIO, default: int = 500) -> int:
    """Return the polling interval that the peer asks for, in milliseconds, or ``default`` if it is unreadable.

    The other values of the document are ignored: they are meant for human readers.
    """
    try:
        root = read_root(file)
    except DocumentError:
        return default
    text = next((e.text or "" for e in root.iter() if names.local_name(e.tag) == "pollingMillis"), "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else default
