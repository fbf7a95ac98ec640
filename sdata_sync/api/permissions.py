"""Check the permissions for reading feeds, pushing feeds, setting digests and linking resources."""

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

READ_FEEDS = "sdata_sync.read_feeds"
PUSH_FEEDS = "sdata_sync.push_feeds"
SET_DIGEST = "sdata_sync.set_digest"
LINK_RESOURCES = "sdata_sync.link_resources"


class SDataPermission(BasePermission):
    """Require a login, and the permission that the view declares for the request's method."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Return True if the user is logged in and has the required permission."""
        user = request.user
        if user is None or not user.is_authenticated:
            return False
        needed: dict[str, str] = getattr(view, "needed_permissions", {})
        permission = needed.get(request.method or "")
        self.message = f"This login needs the permission {permission}."
        # The view does not implement a method without a permission; it answers 405 itself.
        return permission is None or user.has_perm(permission)
