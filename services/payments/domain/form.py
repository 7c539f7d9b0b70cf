"""What accounts and transfers must look like, whatever the state of the books."""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.payments.domain.books import (
    CREDITS_WITHIN_DEBITS,
    DEBITS_WITHIN_CREDITS,
    FREE,
    PENDING,
    POST_PENDING,
    POSTED,
    VOID_PENDING,
    Account,
    Transfer,
)
from services.payments.domain.errors import Invalid

AMOUNT_MAX = 10**15
TRANSFERS_MAX = ACCOUNTS_MAX = 1_000
TEXT_MAX = 100
TIMEOUT_MAX_S = 366 * 86_400
SYSTEM = "system/"
"""Ids of transfers that begin so are payments' own."""
PAYER, PAYEE, CLEARING = "payer/", "payee/", "provider/clearing"
OWN_ACCOUNTS = (PAYER, PAYEE, "provider/")
"""Accounts that begin so are opened by payments itself."""
_ACCOUNT = re.compile(r"[a-z0-9][a-z0-9./-]{0,99}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_RULES = (FREE, DEBITS_WITHIN_CREDITS, CREDITS_WITHIN_DEBITS)


def require_accounts(accounts: Sequence[Account]) -> None:
    """Raises: Invalid, naming the first account at fault."""
    if not 1 <= len(accounts) <= ACCOUNTS_MAX:
        raise Invalid(f"name 1 to {ACCOUNTS_MAX} accounts", field="accounts")
    if len({account.id for account in accounts}) < len(accounts):
        raise Invalid("an account is named twice in one request", field="accounts.id")
    for account in accounts:
        if not _ACCOUNT.fullmatch(account.id) or account.id.startswith(OWN_ACCOUNTS):
            raise Invalid(
                f"{account.id!r} is no name for an account: 1 to 100 lower-case letters, digits, `-`, `/`, `.`, and not beginning"
                f" with {', '.join(OWN_ACCOUNTS)}, which payments opens itself",
                field="accounts.id",
            )
        require_currency(account.currency, "accounts.currency")
        if account.rule not in _RULES:
            raise Invalid(f"give {account.id} a balance rule: {', '.join(_RULES)}", field="accounts.rule")


def require_currency(currency: str, field: str) -> None:
    """Raises: Invalid, where it is no ISO 4217 code in form."""
    if not _CURRENCY.fullmatch(currency):
        raise Invalid(f"{currency!r} is no currency; give three capital letters as in ISO 4217", field=field)


def require_amount(amount_minor: int, field: str = "amount_minor") -> int:
    """Returns it. Raises: Invalid, where it is not 1 to 10^15."""
    if not 1 <= amount_minor <= AMOUNT_MAX:
        raise Invalid(
            f"{amount_minor} is no amount: 1 to {AMOUNT_MAX} minor units; the direction is said by the accounts, never by a sign",
            field=field,
            reason="amount",
        )
    return amount_minor


def require_transfers(transfers: Sequence[Transfer]) -> None:
    """Raises: Invalid, naming the first transfer at fault."""
    if not 1 <= len(transfers) <= TRANSFERS_MAX:
        raise Invalid(f"{len(transfers)} transfers; a request holds 1 to {TRANSFERS_MAX}", field="transfers")
    if len({transfer.id for transfer in transfers}) < len(transfers):
        raise Invalid("a transfer's id is there twice in one request; ids are unique for ever", field="transfers.id")
    for transfer in transfers:
        _require_texts(transfer)
        if transfer.kind in (POSTED, PENDING):
            _require_begin(transfer)
        elif transfer.kind in (POST_PENDING, VOID_PENDING):
            _require_end(transfer)
        else:
            raise Invalid(f"say the kind of the transfer {transfer.id!r}", field="transfers.kind")


def _require_texts(transfer: Transfer) -> None:
    id_ = transfer.id
    if not id_ or len(id_) > TEXT_MAX or not id_.isprintable() or id_.startswith(SYSTEM):
        raise Invalid(
            f"{id_[:TEXT_MAX]!r} is no id: 1 to {TEXT_MAX} printable characters, not beginning with {SYSTEM}",
            field="transfers.id",
        )
    if len(transfer.reference) > TEXT_MAX or not transfer.reference.isprintable():
        raise Invalid(
            f"the reference of {id_!r} is longer than {TEXT_MAX} printable characters", field="transfers.reference"
        )


def _require_begin(transfer: Transfer) -> None:
    require_amount(transfer.amount_minor, "transfers.amount_minor")
    require_currency(transfer.currency, "transfers.currency")
    if transfer.debit == transfer.credit:
        raise Invalid(
            f"{transfer.id!r} is from {transfer.debit!r} to itself; name two accounts", field="transfers.credit_account"
        )
    if transfer.pending:
        raise Invalid(
            f"{transfer.id!r} ends no hold; leave `pending` out, or say post-pending or void-pending",
            field="transfers.pending",
        )
    if not 0 <= transfer.timeout_s <= TIMEOUT_MAX_S or (transfer.timeout_s and transfer.kind == POSTED):
        raise Invalid(
            f"{transfer.id!r}: only a hold has a timeout, of at most {TIMEOUT_MAX_S} s", field="transfers.timeout_s"
        )


def _require_end(transfer: Transfer) -> None:
    if not transfer.pending:
        raise Invalid(f"say in `pending` which hold {transfer.id!r} ends", field="transfers.pending")
    if transfer.timeout_s:
        raise Invalid(f"{transfer.id!r}: only a hold has a timeout", field="transfers.timeout_s")
    if transfer.kind == VOID_PENDING and transfer.amount_minor:
        raise Invalid(f"{transfer.id!r} lets the whole hold go; leave the amount out", field="transfers.amount_minor")
    if transfer.amount_minor:
        require_amount(transfer.amount_minor, "transfers.amount_minor")
