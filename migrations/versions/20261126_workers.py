"""workers say what they can run; jobs, what memory they need"""

import sqlalchemy as sa
from alembic import op

revision = "workers"
down_revision = "holds_and_usage"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("gpus", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.add_column("jobs", sa.Column("memory_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("no_worker_at", sa.Double(), nullable=True))
    op.create_index(op.f("ix_jobs_org_id_started_at"), "jobs", ["org_id", "started_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_org_id_started_at"), table_name="jobs")
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("no_worker_at")
        batch_op.drop_column("memory_bytes")
    op.drop_table("workers")
