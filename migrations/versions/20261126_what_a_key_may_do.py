"""what keys and organisations may do, revisions of what gateways remember, the audit log"""

import sqlalchemy as sa
from alembic import op

revision = "what_a_key_may_do"
down_revision = "training_file_figures"
branch_labels = None
depends_on = None

LIMITS = ("requests_per_minute", "tokens_per_minute", "monthly_budget_micros")
LIVE = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    for table in ("orgs", "api_keys"):
        for column in LIMITS:
            op.add_column(table, sa.Column(column, sa.BigInteger(), nullable=True))
    op.add_column("orgs", sa.Column("deleted_at", sa.Double(), nullable=True))
    with op.batch_alter_table("orgs", schema=None) as batch_op:
        batch_op.drop_constraint("uq_orgs_name", type_="unique")
    op.create_index("uq_orgs_name", "orgs", ["name"], unique=True, sqlite_where=LIVE, postgresql_where=LIVE)
    # Keys could do all of their organisation's work so far.
    op.add_column("api_keys", sa.Column("role", sa.String(), nullable=False, server_default="member"))
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.alter_column("role", server_default=None)
    op.add_column("api_keys", sa.Column("models", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("api_keys", sa.Column("last_used_at", sa.Double(), nullable=True))
    op.create_table(
        "revisions",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_revisions")),
    )
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("org_id", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_audit_entries_org_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
    )
    op.create_index(op.f("ix_audit_entries_org_id_id"), "audit_entries", ["org_id", "id"])


def downgrade() -> None:
    op.drop_table("audit_entries")
    op.drop_table("revisions")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        for column in (*LIMITS, "role", "models", "last_used_at"):
            batch_op.drop_column(column)
    op.drop_index("uq_orgs_name", "orgs")
    with op.batch_alter_table("orgs", schema=None) as batch_op:
        for column in (*LIMITS, "deleted_at"):
            batch_op.drop_column(column)
        batch_op.create_unique_constraint("uq_orgs_name", ["name"])
