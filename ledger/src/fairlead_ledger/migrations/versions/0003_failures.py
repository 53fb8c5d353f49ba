"""Errors by who failed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the database to this version."""
    op.create_table(
        "failures",
        sa.Column("cell_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("unit", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("failure", sa.Text(), nullable=False),
        sa.Column("errors", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("cell_id", "unit", "failure"),
        sqlite_with_rowid=False,
    )
