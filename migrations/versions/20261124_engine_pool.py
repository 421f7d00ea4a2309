"""engine pool: who wishes for devices, and what engines do"""

import sqlalchemy as sa
from alembic import op

revision = "engine_pool"
down_revision = "sealing_keys"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "device_wishes",
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("gpu", sa.String(), nullable=False),
        sa.Column("wished_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("host", "holder", name=op.f("pk_device_wishes")),
    )
    op.create_table(
        "engine_statuses",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("gpu", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("in_flight", sa.BigInteger(), nullable=False),
        sa.Column("tokens_per_second", sa.Double(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("adapters", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_engine_statuses")),
    )


def downgrade() -> None:
    op.drop_table("engine_statuses")
    op.drop_table("device_wishes")
