"""training files: how long their rows are, and what is odd about them"""

import sqlalchemy as sa
from alembic import op

revision = "training_file_figures"
down_revision = "engine_pool"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("files", sa.Column("n_problems", sa.BigInteger(), nullable=True))
    op.add_column("files", sa.Column("warnings", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("files", sa.Column("row_lengths", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("files", schema=None) as batch_op:
        for column in ("row_lengths", "warnings", "n_problems"):
            batch_op.drop_column(column)
