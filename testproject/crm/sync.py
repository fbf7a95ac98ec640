"""What of the CRM is shared with other applications."""

import sdata_sync

from .models import Account, Contact, SalesOrder, SalesOrderLine


@sdata_sync.register(Account)
class AccountSync(sdata_sync.SyncResource):
    """Accounts travel whole; their main contact is filled in when the contacts have come.

    Applications that do not have this model push accounts too, so received rows are validated.
    """

    match_on = ["email"]
    validate = True


@sdata_sync.register(Contact)
class ContactSync(sdata_sync.SyncResource):
    """Contacts, after the accounts that they belong to."""

    match_on = ["email"]


class SalesOrderLineSync(sdata_sync.SyncResource):
    """Lines travel inside their orders."""

    model = SalesOrderLine


@sdata_sync.register(SalesOrder)
class SalesOrderSync(sdata_sync.SyncResource):
    """Orders with their lines, in one piece."""

    children = {"orderLines": SalesOrderLineSync}
