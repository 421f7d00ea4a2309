"""what is left of rate limits, as all gateways see it"""

import sqlalchemy as sa
from alembic import op

revision = "rate_levels"
down_revision = "what_a_key_may_do"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rate_levels",
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("full_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name=op.f("pk_rate_levels")),
    )


def downgrade() -> None:
    op.drop_table("rate_levels")
