"""jobs say who else is told what their training measures"""

import sqlalchemy as sa
from alembic import op

revision = "integrations"
down_revision = "limits_and_quotas"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("integrations", sa.JSON(none_as_null=True), server_default="[]", nullable=False)
    op.add_column("jobs", column)


def downgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("integrations")
