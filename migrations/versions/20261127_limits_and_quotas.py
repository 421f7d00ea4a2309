"""limits: requests at once, quotas of organisations; whose key a job is of, and what stays held for it; no ledger entry
changes or goes
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "limits_and_quotas"
down_revision = "workers"
branch_labels = None
depends_on = None


def columns() -> list[tuple[str, sa.Column[Any]]]:
    limits = [(table, sa.Column("requests_at_once", sa.BigInteger(), nullable=True)) for table in ("orgs", "api_keys")]
    quotas = ("max_stored_files", "max_stored_bytes", "max_queued_jobs")
    return [
        *limits,
        *(("orgs", sa.Column(name, sa.BigInteger(), nullable=True)) for name in quotas),
        ("jobs", sa.Column("key_id", sa.String(), nullable=True)),
        ("jobs", sa.Column("estimated_micros", sa.BigInteger(), nullable=False, server_default="0")),
        ("holds", sa.Column("key_id", sa.String(), nullable=True)),
        ("holds", sa.Column("kept_micros", sa.BigInteger(), nullable=False, server_default="0")),
    ]


def upgrade() -> None:
    for table, column in columns():
        op.add_column(table, column)
    op.create_table(
        "under_way",
        sa.Column("gateway", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("gateway", "subject", name=op.f("pk_under_way")),
    )
    op.create_index(op.f("ix_under_way_subject"), "under_way", ["subject"])
    if op.get_bind().dialect.name == "sqlite":
        for change in ("update", "delete"):
            op.execute(f"""CREATE TRIGGER ledger_refuses_{change} BEFORE {change} ON ledger_entries
                BEGIN SELECT RAISE(ABORT, 'ledger_entries is append-only'); END""")
    else:
        op.execute("""CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'ledger_entries is append-only'; END $$""")
        op.execute("""CREATE TRIGGER ledger_refuses_change BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change()""")


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for change in ("update", "delete"):
            op.execute(f"DROP TRIGGER ledger_refuses_{change}")
    else:
        op.execute("DROP TRIGGER ledger_refuses_change ON ledger_entries")
        op.execute("DROP FUNCTION refuse_ledger_change()")
    op.drop_table("under_way")
    for table, column in reversed(columns()):
        op.drop_column(table, column.name)  # in place: a table that is copied for it loses its triggers
