"""Mandates and payments: authorise, capture, void, refund, and what people and payees read of them. Called by `api`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from city.payments.v1 import payments_service_pb2 as pb
from citykit.access import Principal
from citykit.clock import Clock, unix
from citykit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from citykit.ids import Randomness, new_id
from citykit.once import Once
from citykit.store.port import Store, Unit
from services.payments.app.callers import require_visible, service_name
from services.payments.app.posting import edge_error, open_account
from services.payments.app.settlement import Settlement
from services.payments.domain import payment as rules
from services.payments.domain.books import DEBITS_WITHIN_CREDITS, FREE
from services.payments.domain.errors import RuleBroken
from services.payments.domain.form import CLEARING, PAYEE, PAYER, require_amount
from services.payments.domain.mandate import Mandate, require_charge, require_mandate, require_reference
from services.payments.domain.payment import REASON_MAX, Payment, Step
from services.payments.store import payments as stored
from services.payments.store.payments import ReceiptRow

PAGE_MAX = 100
_PSEUDONYM_BYTES = 12


@dataclass(frozen=True)
class Charge:
    """A payment that is wanted; `mandate` is empty where the resident asks in person."""

    payee: str
    reference: str
    subject: str
    amount_minor: int
    currency: str
    method: str
    mandate: str = ""
    captures: bool = False


@dataclass(frozen=True)
class Payments:
    """Use cases around payments. `currency` is the provider's."""

    store: Store
    settlement: Settlement
    clock: Clock
    randomness: Randomness
    currency: str

    async def create_mandate(
        self, once: Once[pb.CreateMandateResponse], asked: Mandate, lifetime_s: int
    ) -> pb.CreateMandateResponse:
        """Keeps a permission; `asked` has no id and no end yet.

        Raises:
            InvalidArgument, FailedPrecondition (no provider, another currency).
        """
        checked(lambda: require_mandate(asked, lifetime_s))
        self.require_currency(asked.currency)

        def unit(work: Unit) -> pb.CreateMandateResponse:
            if (before := once.before(work)) is not None:
                return before
            kept = replace(asked, id=new_id("mandate", self.randomness), expires_at=unix(self.clock) + lifetime_s)
            stored.add_mandate(work, kept)
            return once.keep(work, pb.CreateMandateResponse(mandate=kept.id))

        return await self.store.write(unit)

    async def authorise(
        self, once: Once[Any], who: Principal, mandate: str, amount_minor: int, currency: str, reference: str
    ) -> Payment:
        """Holds money for the calling service; the state is unknown where the provider gave no certain answer.

        Raises:
            InvalidArgument, NotFound (mandate), AlreadyExists (the reference), FailedPrecondition (mandate's limit, end, payee;
            currency; no provider).
        """
        payee = service_name(who)
        checked(lambda: require_amount(amount_minor))
        checked(lambda: require_reference(reference))
        self.require_currency(currency)

        def intent(work: Unit) -> str:
            given = stored.mandate(work.connection, mandate)
            if given is None:
                raise NotFound("no such mandate; ask the resident for one", field="mandate")
            used = stored.used_minor(work.connection, mandate)
            checked(lambda: require_charge(given, payee, amount_minor, currency, used, unix(self.clock)))
            wanted = Charge(payee, reference, given.subject, amount_minor, currency, given.method, mandate)
            return self.charge(work, wanted)

        return await self.settle(once, who, intent)

    async def capture(self, once: Once[Any], who: Principal, payment: str, amount_minor: int) -> Payment:
        """Takes the held amount or less.

        Raises:
            InvalidArgument, NotFound, FailedPrecondition.
        """
        return await self._next(once, who, payment, lambda found: rules.capture(found, amount_minor))

    async def void(self, once: Once[Any], who: Principal, payment: str) -> Payment:
        """Lets the held amount go.

        Raises:
            NotFound, FailedPrecondition.
        """
        return await self._next(once, who, payment, rules.void)

    async def refund(self, once: Once[Any], who: Principal, payment: str, amount_minor: int, reason: str) -> Payment:
        """Gives captured money back.

        Raises:
            InvalidArgument, NotFound, FailedPrecondition (more than was captured, or than the payee has).
        """
        if len(reason) > REASON_MAX or not reason.isprintable():
            raise InvalidArgument(f"reason has at most {REASON_MAX} printable characters", field="reason")
        return await self._next(once, who, payment, lambda found: rules.refund(found, amount_minor, reason))

    def charge(self, work: Unit, wanted: Charge) -> str:
        """The intent of a new payment, in a unit of work; returns its id.

        Raises:
            AlreadyExists: the payee's reference has a payment. FailedPrecondition: a currency.
        """
        if (before := stored.payment_for(work.connection, wanted.payee, wanted.reference)) is not None:
            raise AlreadyExists(
                f"{wanted.reference!r} has the payment {before.id}, which is {before.state}; one payment for one reference",
                field="reference",
                reason="reference-paid",
            )
        payment = Payment(
            id=new_id("payment", self.randomness),
            payee=wanted.payee,
            reference=wanted.reference,
            subject=wanted.subject,
            account=self._accounts(work, wanted),
            currency=wanted.currency,
            amount_minor=wanted.amount_minor,
            mandate=wanted.mandate,
            method=wanted.method,
            captures=wanted.captures,
            created_at=unix(self.clock),
        )
        self.settlement.begin(work, rules.authorise(payment))
        return payment.id

    async def settle(self, once: Once[Any], who: Principal, intent: Callable[[Unit], str]) -> Payment:
        """Writes the intent down once, asks the provider, and returns the payment as it then is. A retry sees how it went on."""
        self.settlement.provider.require()

        def unit(work: Unit) -> str:
            if (before := once.before(work)) is not None:
                return str(before.payment.id)
            id_ = intent(work)
            once.keep(work, once.kind(payment=pb.Payment(id=id_)))
            return id_

        id_ = await self.store.write(unit)
        await self.settlement.drive(id_)
        return await self.get(who, id_)

    async def get(self, who: Principal, id_: str) -> Payment:
        """Raises: NotFound."""
        return require_visible(who, await self.store.read(lambda c: stored.payment(c, id_)), id_)

    async def page(self, who: Principal, page_size: int, page_token: str) -> tuple[list[Payment], str]:
        """A resident's payments, newest first, and the next page's token.

        Raises:
            InvalidArgument: page size or token.
        """
        if not 0 <= page_size <= PAGE_MAX:
            raise InvalidArgument(f"page_size is 0 (for {PAGE_MAX}) to {PAGE_MAX}", field="page_size")
        limit, after = page_size or PAGE_MAX, _after(page_token)
        rows = await self.store.read(lambda c: stored.payments_of(c, who.subject, after, limit))
        return rows, f"{rows[-1].created_at}.{rows[-1].id}" if len(rows) == limit else ""

    async def receipt(self, who: Principal, id_: str) -> ReceiptRow:
        """The newest version.

        Raises:
            NotFound; FailedPrecondition: nothing is certain yet.
        """
        await self.get(who, id_)
        found = await self.store.read(lambda c: stored.newest_receipt(c, id_))
        if found is None:
            raise FailedPrecondition(
                "the provider has not answered for certain, so there is no receipt yet; GetPayment says when",
                reason="payment-waiting",
                retry_after_s=1.0,
            )
        return found

    async def _next(self, once: Once[Any], who: Principal, id_: str, step: Callable[[Payment], Step]) -> Payment:
        def intent(work: Unit) -> str:
            found = require_visible(who, stored.payment(work.connection, id_), id_)
            begun: list[Step] = []
            checked(lambda: begun.append(step(found)))
            self.settlement.begin(work, begun[0])
            return id_

        return await self.settle(once, who, intent)

    def _accounts(self, work: Unit, wanted: Charge) -> str:
        """Opens what the payment needs; returns the payer's account, a pseudonym."""
        open_account(work, CLEARING, wanted.currency, FREE)
        open_account(work, PAYEE + wanted.payee, wanted.currency, DEBITS_WITHIN_CREDITS)
        account = stored.payer(work.connection, wanted.subject)
        if account is None:
            account = PAYER + self.randomness(_PSEUDONYM_BYTES).hex()
            stored.add_payer(work, wanted.subject, account)
        return open_account(work, account, wanted.currency, DEBITS_WITHIN_CREDITS).id

    def require_currency(self, currency: str) -> None:
        """Raises: FailedPrecondition, where there is no provider or it settles in another currency."""
        self.settlement.provider.require()
        if currency != self.currency:
            raise FailedPrecondition(
                f"payments are in {self.currency}, not {currency!r}; currencies never mix",
                field="currency",
                reason="currency-mix",
            )


def own_account(connection: Connection, subject: str) -> str:
    """A resident's account.

    Raises:
        FailedPrecondition: there is none yet.
    """
    found = stored.payer(connection, subject)
    if found is None:
        raise FailedPrecondition("you have no account yet; it opens with your first payment", reason="no-account")
    return found


def checked(rule: Callable[[], object]) -> None:
    """Runs a rule of the domain in the words of the edge."""
    try:
        rule()
    except RuleBroken as error:
        raise edge_error(error) from None


def _after(token: str) -> tuple[int, str] | None:
    time, _, id_ = token.partition(".")
    if token and not time.isdecimal():
        raise InvalidArgument("page_token must be what the page before gave", field="page_token")
    return (int(time), id_) if token else None
