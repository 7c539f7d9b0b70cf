"""Fabric's errors as the ledger port's words; the one place where they are translated. Called by the adapter."""

from __future__ import annotations

import grpc

from citykit.errors import CityError, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, RequestReused
from citykit.ledger.chaincode import convention
from citykit.ledger.fabric import system
from citykit.ledger.fabric.errors import (
    BlockDamaged,
    CommitInvalid,
    EndorseError,
    FabricError,
    GatewayError,
    OutcomeUnknown,
)
from citykit.ledger.port import CommitFailed, ContractRefused, LedgerDamaged, LedgerOutcomeUnknown, LedgerUnavailable

CONFLICTS = frozenset({"MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT"})
_RETRY_AFTER_S = 1.0
_DIFFERENT = ("ProposalResponsePayloads do not match", "ProposalResponsePayloads from")
_NO_CHAINCODE = ("has been successfully defined on channel", "No metadata was found for chaincode")
_NO_MEMBER = ("access denied", "creator org unknown")
_NO_CHANNEL = ("could not get last config for channel",)
"""Words of peers (Fabric 3.1) that no status tells apart."""
_HANDSHAKES = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its TLS certificate is of another authority than CITY_FABRIC_TLS_CA, or has run out",
    ),
    ("Hostname Verification", "its TLS certificate is for another name: set CITY_FABRIC_TLS_NAME to the one it is for"),
    ("WRONG_VERSION_NUMBER", "it speaks plain text: leave CITY_FABRIC_TLS_CA empty, or have it speak TLS"),
    (
        "Socket closed",
        "it takes connections and closes them: give CITY_FABRIC_TLS_CA where it speaks TLS, and CITY_FABRIC_TLS_CERT and _KEY"
        " of its authority where it asks for a client certificate",
    ),
)
"""How gRPC words a TLS connection that was not made, and what to do."""


def is_conflict(error: FabricError) -> bool:
    """True if a new simulation can help: what was read has changed, or peers answered from different heights."""
    if isinstance(error, CommitInvalid):
        return error.code_name in CONFLICTS
    return isinstance(error, EndorseError) and _differ(error)


def translated(error: FabricError, what: str) -> CityError:
    """The port's error. `what` names the call, as contract.function."""
    if isinstance(error, OutcomeUnknown):
        return LedgerOutcomeUnknown(error.transaction_id)
    if isinstance(error, CommitInvalid):
        return CommitFailed(f"{what} was committed as invalid: {error.code_name}", reason=_kebab(error.code_name))
    if isinstance(error, GatewayError):
        return _of_gateway(error, what)
    if isinstance(error, BlockDamaged):
        return LedgerDamaged(f"{what}: {error}; compare the peer with those of other organisations")
    return LedgerUnavailable(f"{what}: {error}", retry_after_s=_RETRY_AFTER_S)


def _of_gateway(error: GatewayError, what: str) -> CityError:
    fault = error.chaincode
    if fault is not None:
        return _of_contract(convention.parse_fault(fault.status, fault.message), what)
    if _denied(error):
        return PermissionDenied(f"the ledger's peer refuses {what}: {error.message}", reason="ledger-access")
    if _says(error, _NO_CHAINCODE):
        return NotFound(f"no contract for {what} is on the channel: {error}", reason="unknown-function")
    if isinstance(error, EndorseError) and _differ(error):
        return FailedPrecondition(
            f"peers answer {what} differently; compare the versions of the contract they run",
            reason="peers-differ",
            retry_after_s=_RETRY_AFTER_S,
        )
    return LedgerUnavailable(f"{what} was not submitted: {error}", retry_after_s=_RETRY_AFTER_S)


def _of_contract(fault: convention.Fault, what: str) -> CityError:
    match fault.code:
        case convention.CODE_REUSED:
            return RequestReused(fault.message, field="request_id")
        case convention.CODE_UNKNOWN_FUNCTION:
            return NotFound(fault.message, reason="unknown-function")
        case convention.CODE_WRONG_CALL:
            return InvalidArgument(fault.message, field="function")
        case convention.CODE_FAILED:
            return FailedPrecondition(f"{what} failed in its contract: {fault.message}", reason="contract-failed")
        case code:
            return ContractRefused(fault.message, reason=code)


def not_attested(error: FabricError) -> CityError:
    """The port's error where too few peers sign that a transaction is valid: they are away, or behind."""
    if isinstance(error, GatewayError) and system.absent(error):
        return LedgerUnavailable(
            "too few peers have committed the transaction yet; ask again", retry_after_s=_RETRY_AFTER_S
        )
    return translated(error, "having a transaction attested")


def stopping(error: FabricError) -> str | None:
    """What to do about an error that stops the start, since waiting does not help; None where the peer is only away."""
    if not isinstance(error, GatewayError):
        return None
    for words, what in _HANDSHAKES:
        if error.unavailable and _says(error, (words,)):
            return what
    if not error.unavailable or _says(error, _NO_CHANNEL):
        return "check CITY_FABRIC_CHANNEL, CITY_FABRIC_MSP and the certificates in CITY_FABRIC_MEMBERS"
    return None


def _denied(error: GatewayError) -> bool:
    return error.code in (
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    ) or _says(error, _NO_MEMBER)


def _differ(error: EndorseError) -> bool:
    return _says(error, _DIFFERENT)


def _says(error: GatewayError, words: tuple[str, ...]) -> bool:
    texts = (error.message, *(detail.message for detail in error.details))
    return any(word in text for word in words for text in texts)


def _kebab(code_name: str) -> str:
    return code_name.lower().replace("_", "-")
