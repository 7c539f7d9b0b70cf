"""What is asked of the provider: written down first, asked until the outcome is certain, entered in the books once. For `app` and a job.

An answer, a callback and a later question may each bring the outcome, in any order and more than once: the first one counts.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy import Connection

from citykit import canonical
from citykit.clock import Clock, iso, unix
from citykit.ids import Randomness
from citykit.package import commitment
from citykit.store.port import Store, Unit
from services.payments import events
from services.payments.app.posting import Poster, posted
from services.payments.app.provider import ABSENT, AWAY, DONE, Outcome, Provider
from services.payments.domain import payment as rules
from services.payments.domain.payment import AUTHORISED, WAITING, Change, Operation, Payment, Step
from services.payments.domain.receipt import receipt
from services.payments.store import books as stored_books
from services.payments.store import payments as stored
from services.payments.store.payments import ReceiptRow

ASKED_AT_ONCE, ROUND_MAX = 16, 1_000
_STEPS_MAX = 4
_SALT_BYTES = 32


@dataclass(frozen=True)
class Settlement:
    """Drives operations to their outcome."""

    store: Store
    poster: Poster
    provider: Provider
    clock: Clock
    randomness: Randomness
    asking: set[str] = field(default_factory=set)

    def begin(self, unit: Unit, step: Step) -> None:
        """Writes down what will be asked, and holds in the books what it needs.

        Raises:
            FailedPrecondition: the books could not take a good outcome.
        """
        operation = step.operation
        if operation is None:
            raise ValueError("a step that begins has an operation")
        self._save(unit, step.payment)
        stored.add_operation(unit, replace(operation, created_at=unix(self.clock)))
        if step.transfers:
            self.poster.post(unit, operation.id, step.transfers)
        self._rehearse(unit, step.payment, operation)

    async def drive(self, payment_id: str, *, again: bool = False) -> bool:
        """Asks the provider for what a payment waits for, and for what follows. False where the provider is away.

        Args:
            again: it was asked before, so its outcome is looked up first.
        """
        for _ in range(_STEPS_MAX):
            found = await self.store.read(partial(_waiting, payment_id))
            if found is None:
                return True
            payment, operation = found
            outcome = await self._ask(operation, payment, again=again)
            if not outcome.certain:
                await self.store.write(partial(stored.tried, [operation.id]))
                return outcome.state != AWAY
            await self.resolve(operation.id, outcome)
        return True

    async def drive_operation(self, key: str) -> None:
        """Goes on with the payment of an operation."""
        found = await self.store.read(lambda c: stored.operation(c, key))
        if found is not None:
            await self.drive(found.payment)

    async def resolve(self, key: str, outcome: Outcome) -> bool:
        """Enters a certain outcome. False where it was certain before, or nothing of this key was asked."""
        trace = self.poster.trace()
        return await self.store.write(lambda unit: self._resolve(unit, key, outcome, trace))

    async def ask_again(self) -> None:
        """Asks about everything that waits; stops where the provider is away. A job."""
        waiting = await self.store.read(lambda c: stored.waiting_payments(c, ROUND_MAX))
        for at in range(0, len(waiting), ASKED_AT_ONCE):
            some = [payment for payment in waiting[at : at + ASKED_AT_ONCE] if payment not in self.asking]
            answers = await asyncio.gather(*(self.drive(payment, again=True) for payment in some))
            if some and not any(answers):
                return

    async def _ask(self, operation: Operation, payment: Payment, *, again: bool) -> Outcome:
        self.asking.add(payment.id)
        try:
            if again:
                known = await self.provider.status(operation.id)
                if known.state != ABSENT:
                    return known
            return await self.provider.act(operation, payment)
        finally:
            self.asking.discard(payment.id)

    def _resolve(self, unit: Unit, key: str, outcome: Outcome, trace: str) -> bool:
        operation = stored.operation(unit.connection, key)
        if operation is None or operation.state != WAITING:
            return False
        payment = stored.required_payment(unit.connection, operation.payment)
        done = outcome.state == DONE
        step = rules.settled(payment, operation, done=done, reason="" if done else outcome.reason or "refused")
        self._enter(unit, step, trace)
        if step.payment.captures and step.payment.state == AUTHORISED:
            self.begin(unit, rules.capture(step.payment, step.payment.amount_minor))
        return True

    def _enter(self, unit: Unit, step: Step, trace: str) -> None:
        time = unix(self.clock)
        if step.operation is not None:
            stored.end_operation(unit, step.operation)
            if step.transfers:
                time = self.poster.post(unit, f"{step.operation.id}-{step.operation.state}", step.transfers, trace)
        stored.save_payment(unit, step.payment)
        if step.change is not None:
            self._issue(unit, step.payment, step.change, time)

    def _issue(self, unit: Unit, payment: Payment, change: Change, time: int) -> None:
        newest = stored.newest_receipt(unit.connection, payment.id)
        before = canonical.decode(newest.document) if newest is not None else None
        document = canonical.encode(receipt(payment, change, before, iso(time)))
        salt = self.randomness(_SALT_BYTES)
        stored.add_receipt(unit, ReceiptRow(payment.id, payment.version, document, salt))
        unit.publish(events.payment_changed(payment, change, commitment(salt, document), time))

    def _rehearse(self, unit: Unit, payment: Payment, operation: Operation) -> None:
        """Refuses what the books could not take once the provider has done it."""
        wanted = rules.settled(payment, operation, done=True, reason="").transfers
        posted(stored_books.books_for(unit.connection, wanted), wanted, unix(self.clock))

    def _save(self, unit: Unit, payment: Payment) -> None:
        if stored.payment(unit.connection, payment.id) is None:
            stored.add_payment(unit, payment)
        else:
            stored.save_payment(unit, payment)


def _waiting(payment_id: str, connection: Connection) -> tuple[Payment, Operation] | None:
    operation = stored.waiting_operation(connection, payment_id)
    payment = stored.payment(connection, payment_id)
    return (payment, operation) if payment is not None and operation is not None else None
