"""Accounts and transfers of the city's services and its billing desk; expiry of holds. Called by `api` and a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from city.payments.v1 import payments_service_pb2 as pb
from citykit.access import Principal
from citykit.clock import Clock, unix
from citykit.errors import AlreadyExists, NotFound, PermissionDenied
from citykit.once import Once
from citykit.store.port import Store, Unit
from services.payments.app.callers import service_name
from services.payments.app.posting import Poster, edge_error
from services.payments.domain.books import VOID_PENDING, Account, Transfer
from services.payments.domain.errors import RuleBroken
from services.payments.domain.form import OWN_ACCOUNTS, PAYEE, SYSTEM, require_accounts, require_transfers
from services.payments.store import books as stored

EXPIRED_MAX = 100
"""Holds that one set lets go."""
_EXPIRY_SETS_MAX = 50


@dataclass(frozen=True)
class BookKeeping:
    """Use cases around the books."""

    store: Store
    poster: Poster
    clock: Clock

    async def create_accounts(
        self, once: Once[pb.CreateAccountsResponse], accounts: Sequence[Account]
    ) -> pb.CreateAccountsResponse:
        """Opens those that are not there.

        Raises:
            InvalidArgument; AlreadyExists: there with another currency or rule.
        """
        try:
            require_accounts(accounts)
        except RuleBroken as error:
            raise edge_error(error) from None

        def unit(work: Unit) -> pb.CreateAccountsResponse:
            if (before := once.before(work)) is not None:
                return before
            there = stored.accounts(work.connection, [account.id for account in accounts])
            for account in accounts:
                _require_same(account, there.get(account.id))
            new = [account for account in accounts if account.id not in there]
            stored.add_accounts(work, new)
            return once.keep(work, pb.CreateAccountsResponse(created=len(new)))

        return await self.store.write(unit)

    async def account(self, id_: str) -> Account:
        """Raises: NotFound."""
        found = (await self.store.read(lambda c: stored.accounts(c, [id_]))).get(id_)
        if found is None:
            raise NotFound(f"no account {id_!r}; CreateAccounts opens it", field="account")
        return found

    async def transfer(
        self, once: Once[pb.CreateTransfersResponse], who: Principal, transfers: Sequence[Transfer]
    ) -> pb.CreateTransfersResponse:
        """Posts all or none.

        Raises:
            InvalidArgument, NotFound, FailedPrecondition (a rule, a currency, a hold that ended), AlreadyExists (an id used
            with other content), PermissionDenied (somebody else's account).
        """
        try:
            require_transfers(transfers)
        except RuleBroken as error:
            raise edge_error(error) from None
        _require_allowed(who, transfers)
        trace = self.poster.trace()

        def unit(work: Unit) -> pb.CreateTransfersResponse:
            if (before := once.before(work)) is not None:
                return before
            _require_own_holds(work, who, transfers)
            answer = pb.CreateTransfersResponse()
            answer.time.seconds = self.poster.post(work, once.request_id, transfers, trace)
            return once.keep(work, answer)

        return await self.store.write(unit)

    async def expire(self) -> None:
        """Lets go of holds whose time is over. A job."""
        for _ in range(_EXPIRY_SETS_MAX):
            if not await self.store.write(partial(self._expire, unix(self.clock))):
                return

    def _expire(self, now: int, work: Unit) -> int:
        over = stored.expired(work.connection, now, EXPIRED_MAX)
        if over:
            first = f"{SYSTEM}expiry-{stored.newest_set(work.connection).number + 1}"
            ended = [Transfer(f"{first}/{n}", VOID_PENDING, pending=id_) for n, id_ in enumerate(over)]
            self.poster.post(work, first, ended)
        return len(over)


def _require_same(asked: Account, there: Account | None) -> None:
    if there is not None and (there.currency, there.rule) != (asked.currency, asked.rule):
        raise AlreadyExists(
            f"the account {asked.id} is there in {there.currency} with the rule {there.rule}; an account never changes these",
            field="accounts",
        )


def _require_allowed(who: Principal, transfers: Sequence[Transfer]) -> None:
    for transfer in transfers:
        _require_account(who, transfer.debit)
        _require_account(who, transfer.credit)


def _require_own_holds(work: Unit, who: Principal, transfers: Sequence[Transfer]) -> None:
    """A hold's second half need not name its accounts, so the hold is asked."""
    named = [transfer.pending for transfer in transfers if transfer.pending]
    for hold in stored.holds(work.connection, named).values() if named else ():
        _require_account(who, hold.debit)
        _require_account(who, hold.credit)


def _require_account(who: Principal, account: str) -> None:
    """Payers' and the provider's accounts move with payments only, a payee's with its service or the billing desk."""
    if not account.startswith(OWN_ACCOUNTS):
        return
    name = service_name(who)
    if not account.startswith(PAYEE) or (name and account != PAYEE + name):
        raise PermissionDenied(
            f"{account} is not moved by {name or 'billing'}: payers' and the provider's accounts change with payments only,"
            " a payee's by its own service or by billing",
            reason="account-not-yours",
        )
