"""Provide read-only admin classes."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format

M = TypeVar("M", bound=models.Model)
P = TypeVar("P", bound=models.Model)

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin
    TabularInline = admin.TabularInline
else:
    # Django's classes are generic for the type checker only.
    class ModelAdmin(admin.ModelAdmin):
        def __class_getitem__(cls, item):
            return cls

    class TabularInline(admin.TabularInline):
        def __class_getitem__(cls, item):
            return cls


class _ReadOnly:
    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyAdmin(_ReadOnly, ModelAdmin[M]):
    """Show the rows of a model without letting the user add, change or delete them."""


class ReadOnlyInline(_ReadOnly, TabularInline[M, P]):
    """Show related rows as a table inside another page, read-only."""

    extra = 0
    can_delete = False


def shown_stamp(stamp: int | None) -> str:
    """Return a stamp, in milliseconds since 1970, as text in the site's time zone."""
    if stamp is None:
        return "-"
    try:
        moment = datetime.fromtimestamp(stamp / 1000, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return str(stamp)
    if timezone.get_current_timezone_name():
        moment = timezone.localtime(moment)
    return f"{date_format(moment, 'Y-m-d H:i:s')}.{stamp % 1000:03}"
