"""Device packages: what a device signs is read back, and everything that is not in the one form is refused with its reason."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citykit.package import (
    PACKAGE_MAX_BYTES,
    Ed25519Signer,
    Es256Signer,
    PackageError,
    Reading,
    Signer,
    commitment,
    package_hash,
    parse_package,
    sign_package,
    verify_package,
    verify_signature,
)

START = 1_475_535_600
ED, ES = Ed25519Signer.from_seed(bytes(32)), Es256Signer.from_seed(bytes(32))
ONE = sign_package(
    ED, "meter-001", 2, b"\x01" * 32, [Reading(START, 150), Reading(START + 1800, 70_000), Reading(START + 5400, 3)]
)


@given(
    st.sampled_from([ED, ES]),
    st.integers(2, 2**53 - 1),
    st.lists(st.tuples(st.integers(1, 100), st.integers(-(2**53) + 1, 2**53 - 1)), min_size=1, max_size=60),
)
@settings(max_examples=60, deadline=None)
def test_what_is_signed_is_read_back(signer: Signer, sequence: int, steps: list[tuple[int, int]]) -> None:
    readings, time = [], START
    for step, energy in steps:
        time += step * 1800
        readings.append(Reading(time, energy))
    data = sign_package(signer, "meter-001", sequence, b"\x07" * 32, readings)
    package = parse_package(data)
    assert (package.device, package.sequence, package.previous) == ("meter-001", sequence, b"\x07" * 32)
    assert package.readings == tuple(readings)
    assert package.hash == package_hash(data)
    assert verify_package(package, signer.public_key, signer.algorithm)


def test_another_key_algorithm_or_byte_does_not_verify() -> None:
    package = parse_package(ONE)
    assert verify_package(package, ED.public_key, "EdDSA")
    assert not verify_package(package, Ed25519Signer.from_seed(b"\x01" * 32).public_key, "EdDSA")
    assert not verify_package(package, ES.public_key, "ES256")
    assert not verify_package(package, b"short", "EdDSA")
    assert not verify_signature(ES.public_key, "ES256", b"m", bytes(64))
    assert not verify_signature(b"\x04" + bytes(64), "ES256", b"m", ES.sign(b"m"))
    assert not verify_signature(ED.public_key, "EdDSA", b"m", b"short")


def test_signatures_and_keys_are_reproducible() -> None:
    assert ED.sign(b"m") == Ed25519Signer.from_seed(bytes(32)).sign(b"m")
    assert ES.sign(b"m") == Es256Signer.from_seed(bytes(32)).sign(b"m")
    assert (len(ED.public_key), len(ES.public_key)) == (32, 65)


def replaced(old: bytes, new: bytes) -> bytes:
    assert ONE.count(old) >= 1
    return ONE.replace(old, new, 1)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "truncated"),
        (ONE[:50], "truncated"),
        (ONE[:-1], "truncated"),
        (ONE + b"\x00", "not-canonical"),
        (bytes(PACKAGE_MAX_BYTES + 1), "oversized"),
        (b"\x84" + ONE[2:], "not-cose"),
        (b"\xd2\x83" + ONE[2:], "not-canonical"),
        (replaced(b"\xa5\x01\x27", b"\xa5\x01\x28"), "wrong-algorithm"),
        (replaced(b"\x18\x70", b"\x18\x71"), "bad-header"),
        (replaced(b"\x49meter-001", b"\x49METER-001"), "bad-header"),
        (replaced(b"\x62Wh", b"\x62kW"), "wrong-unit"),
        (replaced(b"urn:dev:city:meter-001:", b"urn:dev:city:meter-002:"), "bad-pack"),
        (replaced(b"\x06\x19\x07\x08", b"\x06\x19\x07\x09"), "bad-slot"),
        (replaced(b"\x06\x19\x15\x18", b"\x06\x19\x07\x08"), "not-canonical"),
        (replaced(b"\x66energy\x02\x03", b"\x66enargy\x02\x03"), "bad-pack"),
        (replaced(b"\x66energy\x02\x03", b"\x66energy\x02\xf5"), "not-an-integer"),
        (replaced(b"\xa3\x00\x66energy\x02\x03\x06", b"\xa3\x00\x66energy\x02\x03\x07"), "bad-pack"),
    ],
)
def test_anything_else_is_refused_with_its_reason(data: bytes, code: str) -> None:
    with pytest.raises(PackageError) as error:
        parse_package(data)
    assert error.value.code == code
    assert error.value.message


def _with_value(encoded: bytes) -> bytes:
    """A package whose one value is the given CBOR item, lengths put right."""
    whole = sign_package(ED, "m", 1, bytes(32), [Reading(START, 7)])
    head, payload_at = whole.rindex(b"\xa0\x58") + 1, whole.rindex(b"\xa0\x58") + 3
    length = whole[payload_at - 1]
    payload = whole[payload_at : payload_at + length].replace(b"\x66energy\x02\x07", b"\x66energy\x02" + encoded)
    return whole[:head] + b"\x58" + bytes([len(payload)]) + payload + whole[payload_at + length :]


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (b"\xf9\x7e\x00", "not-an-integer"),  # NaN
        (b"\xf9\x7c\x00", "not-an-integer"),  # infinity
        (b"\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00", "not-an-integer"),  # 1.5
        (b"\xf6", "not-an-integer"),
        (b"\x61a", "not-an-integer"),
        (b"\xc2\x41\x07", "not-an-integer"),  # a bignum
        (b"\x18\x07", "not-canonical"),  # 7 in two bytes
        (b"\x1b\x00\x00\x00\x00\x00\x00\x00\x07", "not-canonical"),
        (b"\x9f\xff", "not-canonical"),  # indefinite
        (b"\xf8\x20", "not-canonical"),
    ],
)
def test_values_are_integers_in_their_shortest_form(item: bytes, code: str) -> None:
    with pytest.raises(PackageError) as error:
        parse_package(_with_value(item))
    assert error.value.code == code


def test_no_change_of_bytes_passes_as_another_valid_package() -> None:
    source = random.Random(7)
    for _ in range(4_000):
        data = bytearray(ONE)
        at = source.randrange(len(data))
        act = source.randrange(3)
        if act == 0:
            data[at] ^= source.randrange(1, 256)
        elif act == 1:
            del data[at:]
        else:
            data[at:at] = bytes([source.randrange(256)])
        try:
            package = parse_package(bytes(data))
        except PackageError:
            continue
        assert not verify_package(package, ED.public_key, "EdDSA")


def test_the_first_package_has_no_previous() -> None:
    assert parse_package(sign_package(ED, "m", 1, bytes(32), [Reading(START, 1)])).sequence == 1
    for sequence, previous in ((1, b"\x01" * 32), (0, bytes(32))):
        with pytest.raises(PackageError, match=r"previous|sequence"):
            parse_package(sign_package(ED, "m", sequence, previous, [Reading(START, 1)]))


def test_commitments_bind_salt_and_content() -> None:
    assert commitment(bytes(32), b"x") == sha256(b"city.commitment.v1\n" + bytes(32) + b"x").digest()
    assert len({commitment(bytes(32), b"x"), commitment(bytes(32), b"y"), commitment(b"\x01" * 32, b"x")}) == 3
