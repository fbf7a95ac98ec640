"""Who may do what: permissions of their own for reading, for pushing, for setting a digest."""

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

READ_FEEDS = "sdata_sync.read_feeds"
PUSH_FEEDS = "sdata_sync.push_feeds"
SET_DIGEST = "sdata_sync.set_digest"
LINK_RESOURCES = "sdata_sync.link_resources"


class SDataPermission(BasePermission):
    """Asks for the permission that the view names for the request's method; nobody gets in without a login."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Tell whether the user may."""
        user = request.user
        if user is None or not user.is_authenticated:
            return False
        needed: dict[str, str] = getattr(view, "needed_permissions", {})
        permission = needed.get(request.method or "")
        # A method without a permission is one that the view does not have: let it say so.
        return permission is None or user.has_perm(permission)
