"""Check the settings, the registered resources and the credentials of the peers, as Django's system checks.

=============  ==================================================================
``settings``   the dictionary ``SDATA_SYNC``, its ``BASE_URL`` and the URLs
``resources``  the registered resources
``database``   the peers and the kinds of the log, with ``check --database``
=============  ==================================================================
"""

from django.core.checks import Tags, register

from .database import check_peers
from .resources import check_resources
from .settings import check_scheme, check_settings, check_urls

__all__ = ["check_peers", "check_resources", "check_scheme", "check_settings", "check_urls", "register_checks"]


def register_checks() -> None:
    """Register the checks with Django."""
    register(check_settings)
    register(check_resources)
    register(check_urls, Tags.urls)
    register(check_scheme, Tags.security, deploy=True)
    register(check_peers, Tags.database)
