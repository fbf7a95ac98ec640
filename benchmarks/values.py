"""Rows of eight fields, of a usual size."""

from testproject.crm.models import Account


def account(number: int) -> Account:
    """Return an account that is not saved yet."""
    return Account(
        name=f"Account {number}",
        email="office@example.com",
        phone="+49 30 1234567",
        city="Berlin",
        country="DE",
        credit_limit="12500.00",
        notes="A note of a usual length, as somebody at the counter would write it.",
    )
