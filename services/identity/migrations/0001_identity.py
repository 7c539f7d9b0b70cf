"""Devices, people, subjects, codes, consents, accesses, openings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "identity_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "devices",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("manufacturer", sa.String, nullable=False),
        sa.Column("registered_at", sa.BigInteger, nullable=False),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("last_sequence", sa.BigInteger),
        sa.Column("revoked_reason", sa.String),
    )
    op.create_table(
        "device_keys",
        sa.Column("device", sa.String, primary_key=True),
        sa.Column("from_sequence", sa.BigInteger, primary_key=True),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("algorithm", sa.String, nullable=False),
        sa.Column("ledger_transaction", sa.String, nullable=False),
    )
    op.create_table(
        "people",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("login", sa.String, nullable=False, unique=True),
        sa.Column("display_name", sa.String, nullable=False),
        sa.Column("roles", sa.String, nullable=False),
        sa.Column("password_salt", sa.LargeBinary, nullable=False),
        sa.Column("password_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "subjects",
        sa.Column("subject", sa.String, primary_key=True),
        sa.Column("audience", sa.String, nullable=False),
        sa.Column("person", sa.String, nullable=False),
    )
    op.create_index("ix_subjects_person", "subjects", ["person"])
    op.create_table(
        "codes",
        sa.Column("hash", sa.LargeBinary, primary_key=True),
        sa.Column("person", sa.String, nullable=False),
        sa.Column("client", sa.String, nullable=False),
        sa.Column("redirect", sa.String, nullable=False),
        sa.Column("challenge", sa.String, nullable=False),
        sa.Column("nonce", sa.String, nullable=False),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("used", sa.Integer, nullable=False),
    )
    op.create_table(
        "consents",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("person", sa.String, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("recipient", sa.String, nullable=False),
        sa.Column("given_at", sa.BigInteger, nullable=False),
        sa.Column("withdrawn_at", sa.BigInteger),
        sa.Column("receipt_json", sa.String, nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_consents_person", "consents", ["person"])
    op.create_table(
        "accesses",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("person", sa.String, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("what", sa.String, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_accesses_person", "accesses", ["person"])
    op.create_table(
        "openings",
        sa.Column("commitment", sa.LargeBinary, primary_key=True),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
    )
