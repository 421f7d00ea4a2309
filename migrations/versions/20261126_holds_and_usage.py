"""money: holds, balances and usage that the database keeps up itself, price versions"""

import sqlalchemy as sa
from alembic import op

revision = "holds_and_usage"
down_revision = "rate_levels"
branch_labels = None
depends_on = None

SUMS = (
    "amount_micros",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "trained_tokens",
    "gpu_seconds",
)
KEYS = ("org_id", "hour_at", "key_id", "model", "kind", "gpu")
COLUMNS = ", ".join([*KEYS, "n_entries", *SUMS])
CONFLICT = f"ON CONFLICT ({', '.join(KEYS)}) DO UPDATE SET n_entries = usage_hours.n_entries + excluded.n_entries, " + (
    ", ".join(f"{name} = usage_hours.{name} + excluded.{name}" for name in SUMS)
)
HOUR = "CAST(floor({row}created_at / 3600) AS BIGINT) * 3600"
BALANCE_CONFLICT = "ON CONFLICT (org_id) DO UPDATE SET micros = balances.micros + excluded.micros"


def keys_of(row: str) -> str:
    optional = [f"coalesce({row}{name}, '')" for name in ("key_id", "model")]
    return ", ".join([f"{row}org_id", HOUR.format(row=row), *optional, f"{row}kind", f"coalesce({row}gpu, '')"])


def sums_of(entries: str) -> tuple[str, str]:
    """Of many entries. In one order always, so that two who write for the same organisations do not lock crosswise."""
    balances = f"""INSERT INTO balances (org_id, micros)
        SELECT org_id, sum(amount_micros) FROM {entries} WHERE true GROUP BY org_id ORDER BY org_id"""  # noqa: S608
    hours = f"""INSERT INTO usage_hours ({COLUMNS})
        SELECT {keys_of("")}, count(*), {", ".join(f"sum({name})" for name in SUMS)}
        FROM {entries} WHERE true GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6"""  # noqa: S608
    return balances, hours


def upgrade() -> None:
    op.add_column("ledger_entries", sa.Column("key_id", sa.String(), nullable=True))
    op.add_column("ledger_entries", sa.Column("price_version", sa.String(), nullable=True))
    op.add_column(
        "ledger_entries", sa.Column("reasoning_tokens", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column("jobs", sa.Column("waits_for_credit", sa.Boolean(), nullable=False, server_default=sa.false()))
    create_tables()
    for statement in sums_of("ledger_entries"):
        op.execute(statement)
    if op.get_bind().dialect.name == "sqlite":
        roll_up_on_sqlite()
    else:
        roll_up_on_postgresql()


def create_tables() -> None:
    op.create_table(
        "balances",
        sa.Column("org_id", sa.String(), nullable=False),
        sa.Column("micros", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_balances_org_id")),
        sa.PrimaryKeyConstraint("org_id", name=op.f("pk_balances")),
    )
    op.create_table(
        "usage_hours",
        sa.Column("org_id", sa.String(), nullable=False),
        sa.Column("hour_at", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("key_id", "model", "kind", "gpu")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("n_entries", *SUMS[:-1])),
        sa.Column("gpu_seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_usage_hours_org_id")),
        sa.PrimaryKeyConstraint(*KEYS, name=op.f("pk_usage_hours")),
    )
    op.create_table(
        "holds",
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("org_id", sa.String(), nullable=False),
        sa.Column("micros", sa.BigInteger(), nullable=False),
        sa.Column("wanted_micros", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name=op.f("fk_holds_org_id")),
        sa.PrimaryKeyConstraint("holder", "org_id", name=op.f("pk_holds")),
    )
    op.create_index(op.f("ix_holds_org_id"), "holds", ["org_id"])
    op.create_table(
        "price_versions",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("prices", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_versions")),
    )


def roll_up_on_sqlite() -> None:
    new = ", ".join(f"new.{name}" for name in SUMS)
    op.execute(f"""CREATE TRIGGER roll_up_entries AFTER INSERT ON ledger_entries BEGIN
        INSERT INTO balances (org_id, micros) VALUES (new.org_id, new.amount_micros) {BALANCE_CONFLICT};
        INSERT INTO usage_hours ({COLUMNS}) VALUES ({keys_of("new.")}, 1, {new}) {CONFLICT};
        END""")  # noqa: S608


def roll_up_on_postgresql() -> None:
    balances, hours = sums_of("new_entries")
    op.execute(f"""CREATE FUNCTION roll_up_entries() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        {balances} {BALANCE_CONFLICT};
        {hours} {CONFLICT};
        RETURN NULL; END $$""")
    op.execute("""CREATE TRIGGER roll_up_entries AFTER INSERT ON ledger_entries
        REFERENCING NEW TABLE AS new_entries FOR EACH STATEMENT EXECUTE FUNCTION roll_up_entries()""")


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER roll_up_entries")
    else:
        op.execute("DROP TRIGGER roll_up_entries ON ledger_entries")
        op.execute("DROP FUNCTION roll_up_entries()")
    for table in ("price_versions", "holds", "usage_hours", "balances"):
        op.drop_table(table)
    with op.batch_alter_table("ledger_entries", schema=None) as batch_op:
        for column in ("reasoning_tokens", "price_version", "key_id"):
            batch_op.drop_column(column)
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_column("waits_for_credit")
