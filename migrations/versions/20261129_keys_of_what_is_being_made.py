"""idempotency keys: a key can be held while what it stands for is still being made"""

import sqlalchemy as sa
from alembic import op

revision = "keys_of_what_is_being_made"
down_revision = "usage_days"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("idempotency_keys", sa.Column("expires_at", sa.Double()))


def downgrade() -> None:
    op.execute("DELETE FROM idempotency_keys WHERE expires_at IS NOT NULL")
    op.drop_column("idempotency_keys", "expires_at")
