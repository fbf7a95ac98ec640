"""What of the CRM was shared then."""

import sdata_sync
from testproject.crm.models import Account

sdata_sync.unregister(Account)


@sdata_sync.register(Account)
class OlderAccounts(sdata_sync.SyncResource):
    fields = ["name", "email", "city", "country", "credit_limit", "is_active"]
