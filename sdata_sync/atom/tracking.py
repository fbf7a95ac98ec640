"""How far an asynchronous operation is: the tracking payload (SData core 3.11)."""

from dataclasses import dataclass
from typing import BinaryIO

from ..exceptions import DocumentError
from . import names
from .document import read_root
from .text import escape


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracking:
    """The body of a 202: ``progress`` in percent, times in seconds, when to ask again in milliseconds."""

    phase: str
    phase_detail: str = ""
    progress: float = 0.0
    elapsed_seconds: int = 0
    remaining_seconds: int = 0
    polling_millis: int = 500


def render_tracking(tracking: Tracking) -> str:
    """Return the document. The polling interval is always positive: some clients divide by it or spin."""
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<tracking xmlns="{names.SDATA}">'
        f"<phase>{escape(tracking.phase)}</phase><phaseDetail>{escape(tracking.phase_detail)}</phaseDetail>"
        f"<progress>{min(max(tracking.progress, 0.0), 100.0):.1f}</progress>"
        f"<elapsedSeconds>{max(tracking.elapsed_seconds, 0)}</elapsedSeconds>"
        f"<remainingSeconds>{max(tracking.remaining_seconds, 0)}</remainingSeconds>"
        f"<pollingMillis>{max(tracking.polling_millis, 1)}</pollingMillis></tracking>"
    )


def read_polling_millis(file: BinaryIO, default: int = 500) -> int:
    """Return when the peer wishes to be asked again; what cannot be read says nothing.

    Only the interval is used: a peer's idea of its own progress is for people.
    """
    try:
        root = read_root(file)
    except DocumentError:
        return default
    text = next((e.text or "" for e in root.iter() if names.local_name(e.tag) == "pollingMillis"), "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else default
