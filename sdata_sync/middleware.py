"""Record changes made in a request as changes of the user who is logged in."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

from .users import acting_as


class SyncUserMiddleware:
    """Set the user of the request for ``acting_as``; list it after ``AuthenticationMiddleware``.

    A user that Django REST framework authenticates is used too, because the framework sets it on the request.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer the request, and record its changes as changes of its user."""

        def user_name() -> str:
            user = getattr(request, "user", None)
            return user.get_username() if user is not None and user.is_authenticated else ""

        with acting_as(user_name):
            return self.get_response(request)
