"""Middleware: changes made in a request are those of the user who is logged in."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

from .users import acting_as


class SyncUserMiddleware:
    """Put it after ``AuthenticationMiddleware``.

    Users that Django REST framework finds out itself are seen too, since it tells the request.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer the request with its user known."""

        def user_name() -> str:
            user = getattr(request, "user", None)
            return user.get_username() if user is not None and user.is_authenticated else ""

        with acting_as(user_name):
            return self.get_response(request)
