"""Postings: the two documents city.posting.v1 of a movement, in their canonical bytes, and the salts derived from a set's seed.

The bytes are written by hand because this is the hottest path of the service; a test holds them to the general encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from json.encoder import encode_basestring as text

from services.payments.domain.books import Balance, Movement

SEED_BYTES = 32


def documents(movement: Movement, rules: Mapping[str, str], time: str) -> tuple[bytes, bytes]:
    """(debit's, credit's) posting.

    Args:
        rules: account -> its balance rule.
        time: UTC text.
    """
    m = movement
    shared = (
        f'"currency":"{m.currency}","format":"city.posting.v1","held_minor":{m.held_minor},"kind":"{m.kind}","number":'
    )
    reference, end = text(m.reference), f'"time":"{time}","transfer":{text(m.id)}}}'
    debit = (
        f'{{"account":"{m.debit}","amount_minor":{m.amount_minor},"balance":{_balance(m.debit_balance)},"counter":"{m.credit}",'
        f'{shared}{m.debit_number},"reference":{reference},"rule":"{rules[m.debit]}","side":"debit",{end}'
    )
    credit = (
        f'{{"account":"{m.credit}","amount_minor":{m.amount_minor},"balance":{_balance(m.credit_balance)},"counter":"{m.debit}",'
        f'{shared}{m.credit_number},"reference":{reference},"rule":"{rules[m.credit]}","side":"credit",{end}'
    )
    return debit.encode(), credit.encode()


def set_documents(movements: Sequence[Movement], rules: Mapping[str, str], time: str) -> list[bytes]:
    """The postings of a set in order: debit, credit, debit, credit, …"""
    return [document for movement in movements for document in documents(movement, rules, time)]


def posting_salts(seed: bytes, count: int) -> list[bytes]:
    """The salts of a set's postings. From one of them nobody learns the seed or another."""
    begin = sha256(b"city.posting-salt.v1\n" + seed)
    return [_continued(begin, place) for place in range(count)]


def set_salt(seed: bytes) -> bytes:
    """The salt of the set's root."""
    return sha256(b"city.set-salt.v1\n" + seed).digest()


def _continued(begin: object, place: int) -> bytes:
    digest = begin.copy()  # type: ignore[attr-defined]  # hashlib's type has no public name
    digest.update(place.to_bytes(4, "big"))
    result: bytes = digest.digest()
    return result


def _balance(balance: Balance) -> str:
    debits_pending, debits_posted, credits_pending, credits_posted = balance
    return (
        f'{{"credits_pending_minor":{credits_pending},"credits_posted_minor":{credits_posted},'
        f'"debits_pending_minor":{debits_pending},"debits_posted_minor":{debits_posted}}}'
    )
