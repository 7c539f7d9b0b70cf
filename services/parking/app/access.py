"""Access documents and instructions to locks, signed with a key that is on the ledger (docs/PROOFS.md). Called by `api`."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from google.protobuf.timestamp_pb2 import Timestamp

from city.parking.v1 import parking_service_pb2 as pb
from citykit import canonical
from citykit.clock import Clock, unix
from citykit.errors import FailedPrecondition, ResourceExhausted
from citykit.ledger.port import Ledger
from citykit.once import Once
from citykit.package import NO_PREVIOUS, UNLOCK, Es256Signer, Reading, package_hash, sign_package
from citykit.store.port import Store, Unit
from services.parking.app.tariffs import Tariffs
from services.parking.app.words import own
from services.parking.domain.errors import WrongState
from services.parking.domain.lots import Lot
from services.parking.domain.reservation import ENTRY, Reservation, expected_act
from services.parking.store import access as stored
from services.parking.store import reservations
from services.parking.store.access import KeyRow

ALGORITHM, KIND = "ES256", "city-access+jwt"
EXIT_S = 900
"""How long an exit document opens."""
SKEW_S = 60
"""How far a lock's clock may run behind."""
DOCUMENTS_MAX = 40
"""Of one reservation."""
INSTRUCTIONS_MAX = 100
SENDER = "parking-"
"""The name instructions are signed under begins so; the lock's follows."""
KEY_ID_HEX = 16


class Keys:
    """The key of the service and what of it is published. `load` at the start, `publish` until it is done (a job)."""

    def __init__(self, store: Store, ledger: Ledger, seed: bytes) -> None:
        self._store = store
        self._ledger = ledger
        self.signer = Es256Signer.from_seed(seed)
        self.kid = sha256(self.signer.public_key).hexdigest()[:KEY_ID_HEX]
        self.rows: list[KeyRow] = []

    async def load(self) -> None:
        self.rows = await self._store.read(stored.keys)

    async def publish(self) -> None:
        """Puts the public key on the ledger, once.

        Raises:
            Unavailable: the ledger is away.
        """
        if any(row.kid == self.kid for row in self.rows):
            return
        arguments = {"kid": self.kid, "key": self.signer.public_key.hex()}
        receipt = await self._ledger.submit(
            "parking-keys", "publish", arguments, submitter="parking", request_id=f"parking-key-{self.kid}"
        )
        row = KeyRow(self.kid, self.signer.public_key, receipt.transaction)
        await self._store.write(partial(stored.add_key, row=row))
        await self.load()

    def jws(self, claims: dict[str, object]) -> str:
        """The claims as an access document."""
        return signed(self.signer, self.kid, claims)


def signed(signer: Es256Signer, kid: str, claims: dict[str, object]) -> str:
    """The claims as a compact JWS (RFC 7515)."""
    header = canonical.encode({"alg": ALGORITHM, "kid": kid, "typ": KIND})
    content = f"{_text(header)}.{_text(canonical.encode(claims))}"
    return f"{content}.{_text(signer.sign(content.encode()))}"


@dataclass(frozen=True)
class Access:
    """Use cases. `city` is the issuer; `lot_of` finds a lot."""

    store: Store
    keys: Keys
    tariffs: Tariffs
    lot_of: Callable[[str], Lot | None]
    clock: Clock
    city: str

    async def issue(
        self, once: Once[pb.IssueAccessResponse], subject: str, id_: str, act: str
    ) -> pb.IssueAccessResponse:
        """A document that opens the lot's lock once.

        Raises:
            NotFound, InvalidArgument, FailedPrecondition (not confirmed, over), ResourceExhausted, Unavailable.
        """
        await self.keys.publish()

        def unit(work: Unit) -> pb.IssueAccessResponse:
            one = own(reservations.get(work.connection, id_), id_, subject)
            if (before := once.before(work)) is not None:
                return before
            return once.keep(work, self._issued(work, one, act)[1])

        return await self.store.write(unit)

    async def unlock(self, once: Once[pb.UnlockResponse], subject: str, id_: str, act: str) -> pb.UnlockResponse:
        """An instruction that the lock fetches.

        Raises:
            As `issue`; FailedPrecondition `too-early`: a lock obeys at once, and an entry before its time would not count.
        """
        await self.keys.publish()

        def unit(work: Unit) -> pb.UnlockResponse:
            one = own(reservations.get(work.connection, id_), id_, subject)
            if (before := once.before(work)) is not None:
                return before
            number, issued = self._issued(work, one, act)
            self._require_begun(issued.not_before.seconds)
            return once.keep(work, pb.UnlockResponse(instruction=self._instruct(work, self._lock(one), number)))

        return await self.store.write(unit)

    def _require_begun(self, start: int) -> None:
        wait_s = start - unix(self.clock)
        if wait_s > 0:
            raise FailedPrecondition(
                f"the lot opens for you in {-(-wait_s // 60)} minutes of city time; unlock then, or show the access document",
                reason="too-early",
                field="reservation",
            )

    async def instructions(self, lock: str, after: int) -> list[bytes]:
        """What a lock has not seen yet, in order, at most 100."""
        return await self.store.read(lambda c: stored.instructions(c, lock, after, INSTRUCTIONS_MAX))

    def _lock(self, one: Reservation) -> str:
        lot = self.lot_of(one.lot)
        if lot is None or not lot.lock:
            raise FailedPrecondition(
                "the lot has no lock any more; ask its operator", reason="no-lock", field="reservation"
            )
        return lot.lock

    def _issued(self, unit: Unit, one: Reservation, wanted: str) -> tuple[int, pb.IssueAccessResponse]:
        given = stored.access_of(unit.connection, one.id)
        if len(given) >= DOCUMENTS_MAX:
            raise ResourceExhausted(
                f"{DOCUMENTS_MAX} documents were given out for this reservation; ask the operator",
                reason="too-many-documents",
            )
        act = expected_act(one, wanted, any(row.act == ENTRY for row in given))
        now, lock = unix(self.clock), self._lock(one)
        start, end = self._validity(one, act, now)
        number = stored.next_number(unit, one.id, lock, act, start, end)
        document = self.keys.jws(
            {
                "iss": self.city, "aud": lock, "sub": one.id, "jti": str(number), "act": act,
                "lot": one.lot, "bay": one.bay, "iat": now, "nbf": start, "exp": end,
            }
        )  # fmt: skip
        stored.set_document(unit, number, document)
        times = {"not_before": Timestamp(seconds=start), "expires": Timestamp(seconds=end)}
        return number, pb.IssueAccessResponse(document=document, **times)

    def _validity(self, one: Reservation, act: str, now: int) -> tuple[int, int]:
        if act != ENTRY:
            return now - SKEW_S, now + EXIT_S
        if now >= one.to_time:
            raise WrongState("the reserved time is over; reserve again", "reservation")
        tariff = self.tariffs.version(one.tariff, one.tariff_version)
        return one.from_time - tariff.grace_minutes * 60, one.to_time

    def _instruct(self, unit: Unit, lock: str, number: int) -> bytes:
        sequence, previous = stored.instruction_head(unit.connection, lock) or (0, NO_PREVIOUS)
        reading = Reading(unix(self.clock), number)
        package = sign_package(self.keys.signer, SENDER + lock, sequence + 1, previous, [reading], UNLOCK)
        stored.add_instruction(unit, lock, sequence + 1, package_hash(package), package)
        return package


def kid_of(document: str) -> str:
    """The id of the key that signed a document of ours."""
    header = document.partition(".")[0]
    return str(canonical.decode(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
