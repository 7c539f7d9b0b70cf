"""The version of a contract: a hash of its code, so that peers and operators see when two run different ones. Used at deployment and at start."""

from __future__ import annotations

from hashlib import sha256

from citykit.ledger.lint import own_sources

_DIGITS = 12


def contract_version(contract: object) -> str:
    """12 hex digits of SHA-256 over the contract's own sources (`lint.own_sources`), in the order of their paths.

    White space and comments count: two checkouts of one revision agree, any change differs.
    """
    digest = sha256()
    for path in own_sources(contract):
        content = path.read_bytes()
        digest.update(f"{path.parent.name}/{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:_DIGITS]


def package_label(contract: object) -> str:
    """NAME_VERSION: the label of the contract's chaincode package; the package id begins with it."""
    return f"{getattr(contract, 'name', '')}_{contract_version(contract)}"
