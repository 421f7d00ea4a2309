"""usage: days that are over are summed up, and their hours kept apart from those that entries are added to"""

import sqlalchemy as sa
from alembic import op

revision = "usage_days"
down_revision = "watched_keys"
branch_labels = None
depends_on = None

SHARED = ("key_id", "model", "kind", "gpu")
COUNTS = (
    "n_entries",
    "amount_micros",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "trained_tokens",
)
KEYS = ("org_id", "hour_at", *SHARED)
SUMS = (*COUNTS, "gpu_seconds")


def upgrade() -> None:
    """Days that are over already are closed by a gateway; until then their hours are where they were, and count."""
    for table, start in (("usage_closed_hours", "hour_at"), ("usage_days", "day_at")):
        op.create_table(
            table,
            sa.Column("org_id", sa.String(), nullable=False),
            sa.Column(start, sa.BigInteger(), nullable=False),
            *(sa.Column(name, sa.String(), nullable=False) for name in SHARED),
            *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
            sa.Column("gpu_seconds", sa.Double(), nullable=False),
            sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f(f"fk_{table}_org_id")),
            sa.PrimaryKeyConstraint("org_id", start, *SHARED, name=op.f(f"pk_{table}")),
        )


def downgrade() -> None:
    columns, keys = ", ".join([*KEYS, *SUMS]), ", ".join(KEYS)
    added = ", ".join(f"{name} = usage_hours.{name} + excluded.{name}" for name in SUMS)
    op.execute(f"""INSERT INTO usage_hours ({columns}) SELECT {columns} FROM usage_closed_hours WHERE true
        ON CONFLICT ({keys}) DO UPDATE SET {added}""")  # noqa: S608
    op.drop_table("usage_days")
    op.drop_table("usage_closed_hours")
