"""responses: an answer that is stored nowhere is kept, sealed, for who sends the same again under its key"""

import sqlalchemy as sa
from alembic import op

revision = "answers_under_keys"
down_revision = "keys_of_what_is_being_made"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("idempotency_keys", sa.Column("answer", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Who sends the same again is answered afresh."""
    op.execute("DELETE FROM idempotency_keys WHERE answer IS NOT NULL")
    op.drop_column("idempotency_keys", "answer")
