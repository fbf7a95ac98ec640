"""What of the CRM is shared with other applications."""

import sdata_sync

from .models import Account


@sdata_sync.register(Account)
class AccountSync(sdata_sync.SyncResource):
    """Accounts travel whole; every default is right for them."""
