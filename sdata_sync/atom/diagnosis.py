"""Read and write the diagnosis, the description of an error (SData core 3.10)."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO

from lxml import etree

from ..core.text import one_line
from ..exceptions import DocumentError
from . import names
from .document import read_root
from .text import escape, replace_forbidden


class Severity(StrEnum):
    """Name the severities of a diagnosis; they are written in lower case."""

    INFO = "info"
    WARNING = "warning"
    TRANSIENT = "transient"
    ERROR = "error"
    FATAL = "fatal"


class SDataCode(StrEnum):
    """Name the ten codes of the specification. Clients drop a document that has another code."""

    BAD_URL_SYNTAX = "BadUrlSyntax"
    BAD_QUERY_PARAMETER = "BadQueryParameter"
    APPLICATION_NOT_FOUND = "ApplicationNotFound"
    APPLICATION_UNAVAILABLE = "ApplicationUnavailable"
    DATASET_NOT_FOUND = "DatasetNotFound"
    DATASET_UNAVAILABLE = "DatasetUnavailable"
    CONTRACT_NOT_FOUND = "ContractNotFound"
    RESOURCE_KIND_NOT_FOUND = "ResourceKindNotFound"
    BAD_WHERE_SYNTAX = "BadWhereSyntax"
    APPLICATION_DIAGNOSIS = "ApplicationDiagnosis"


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """Describe one error or warning.

    ``application_code`` is more specific than ``sdata_code``. ``payload_path`` is the path of the element that the
    diagnosis is about. ``stack_trace`` is set in debug mode only.
    """

    message: str
    severity: Severity = Severity.ERROR
    sdata_code: SDataCode = SDataCode.APPLICATION_DIAGNOSIS
    application_code: str = ""
    payload_path: str = ""
    stack_trace: str = ""

    def render(self) -> str:
        """Return the ``sdata:diagnosis`` element as text."""
        parts = [
            f"<sdata:diagnosis><sdata:severity>{self.severity}</sdata:severity>"
            f"<sdata:sdataCode>{self.sdata_code}</sdata:sdataCode>"
        ]
        for tag, text in (
            ("applicationCode", self.application_code),
            ("message", self.message),
            ("stackTrace", self.stack_trace),
            ("payloadPath", self.payload_path),
        ):
            if text:
                parts.append(f"<sdata:{tag}>{escape(replace_forbidden(text))}</sdata:{tag}>")
        parts.append("</sdata:diagnosis>")
        return "".join(parts)


def render_diagnoses(diagnoses: Iterable[Diagnosis]) -> str:
    """Return the document that answers a failed request (SData core 3.10)."""
    inner = "".join(diagnosis.render() for diagnosis in diagnoses)
    declaration = '<?xml version="1.0" encoding="utf-8"?>'
    return f'{declaration}\n<sdata:diagnoses xmlns:sdata="{names.SDATA}">{inner}</sdata:diagnoses>'


def read_diagnoses(file: BinaryIO) -> list[Diagnosis]:
    """Read the diagnoses in a peer's error response; return an empty list if the response is not XML."""
    try:
        root = read_root(file)
    except DocumentError:
        return []
    elements = (
        [root, *root.iter("{*}diagnosis")] if names.local_name(root.tag) == "diagnosis" else root.iter("{*}diagnosis")
    )
    return [read_diagnosis(element) for element in elements]


def read_diagnosis(element: etree._Element) -> Diagnosis:
    """Read one ``diagnosis`` element.

    An unknown severity is read as ``error``. An unknown code is read as ``ApplicationDiagnosis``.
    """
    values = {names.local_name(child.tag): (child.text or "").strip() for child in element}
    severity = values.get("severity", "").lower()
    code = values.get("sdataCode", "")
    return Diagnosis(
        message=one_line(values.get("message", "")),
        severity=Severity(severity) if severity in set(Severity) else Severity.ERROR,
        sdata_code=SDataCode(code) if code in set(SDataCode) else SDataCode.APPLICATION_DIAGNOSIS,
        application_code=one_line(values.get("applicationCode", "")),
        payload_path=one_line(values.get("payloadPath", "")),
    )
