"""background responses: which are worked on, and their events"""

import sqlalchemy as sa
from alembic import op

revision = "background_responses"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "response_leases",
        sa.Column("response_id", sa.String(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["response_id"], ["stored_responses.id"], name=op.f("fk_response_leases_response_id")),
        sa.PrimaryKeyConstraint("response_id", name=op.f("pk_response_leases")),
    )
    op.create_table(
        "response_event_batches",
        sa.Column("response_id", sa.String(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.JSON(none_as_null=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["response_id"], ["stored_responses.id"], name=op.f("fk_response_event_batches_response_id")
        ),
        sa.PrimaryKeyConstraint("response_id", "last_number", name=op.f("pk_response_event_batches")),
    )
    with op.batch_alter_table("stored_responses", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_stored_responses_created_at"), ["created_at"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("stored_responses", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_stored_responses_created_at"))

    op.drop_table("response_event_batches")
    op.drop_table("response_leases")
