"""Answer every error with diagnoses (SData core 3.10)."""

import logging
import traceback
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import Http404
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import set_rollback

from ..atom import names
from ..atom.diagnosis import Diagnosis, SDataCode, Severity
from ..exceptions import DocumentError, FeedError, LinkError, TooMuch
from .renderers import Diagnoses

logger = logging.getLogger(__name__)


class KindNotFound(exceptions.NotFound):
    """Raised for a kind that is not registered at this node."""


class UrlNotFound(exceptions.NotFound):
    """Raised for a URL that names nothing at this node."""


def answer_error(error: Exception, context: dict[str, Any]) -> Response:
    """Return the response for an exception that a view raised."""
    set_rollback()
    headers: dict[str, str] = {}
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if isinstance(error, DocumentError | FeedError | LinkError):
        path = getattr(error, "payload_path", "")
        diagnosis = Diagnosis(message=str(error), application_code=error.application_code, payload_path=path)
        code = error.status
        if isinstance(error, TooMuch):
            headers["Retry-After"] = str(error.retry_seconds)
    elif isinstance(error, exceptions.APIException):
        diagnosis, code, headers = _of_framework(error)
    else:
        diagnosis, code = _of_failure(error)
    return Response(
        Diagnoses(diagnoses=(diagnosis,)),
        status=code,
        headers=headers,
        content_type=f"{names.XML_TYPE}; charset=utf-8",
    )


def _of_framework(error: exceptions.APIException) -> tuple[Diagnosis, int, dict[str, str]]:
    headers = {}
    if getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = error.auth_header  # type: ignore[attr-defined]
    if (seconds := getattr(error, "wait", None)) is not None:  # of exceptions.Throttled
        headers["Retry-After"] = str(seconds)
    codes: dict[type[Exception], SDataCode] = {
        KindNotFound: SDataCode.RESOURCE_KIND_NOT_FOUND,
        UrlNotFound: SDataCode.BAD_URL_SYNTAX,
    }
    if type(error) in codes:
        diagnosis = Diagnosis(message=str(error.detail), sdata_code=codes[type(error)])
    else:
        diagnosis = Diagnosis(message=str(error.detail), application_code=type(error).__name__)
    return diagnosis, error.status_code, headers


def _of_failure(error: Exception) -> tuple[Diagnosis, int]:
    """Log an unexpected exception, and return a diagnosis that does not disclose its cause to the client."""
    logger.error("A request failed with an unexpected exception", exc_info=error)
    trace = "".join(traceback.format_exception(error)) if settings.DEBUG else ""
    if isinstance(error, OperationalError):
        message = "The database is busy or cannot be reached. Nothing was applied; try again."
        diagnosis = Diagnosis(message=message, severity=Severity.TRANSIENT, stack_trace=trace, application_code="Busy")
        return diagnosis, status.HTTP_503_SERVICE_UNAVAILABLE
    message = "The request could not be processed because of an error in this node. Nothing was applied."
    diagnosis = Diagnosis(message=message, severity=Severity.FATAL, stack_trace=trace, application_code="Failure")
    return diagnosis, status.HTTP_500_INTERNAL_SERVER_ERROR
