"""keys: changes are counted for gateways to notice, and the audit log only grows"""

from alembic import op

revision = "watched_keys"
down_revision = "integrations"
branch_labels = None
depends_on = None

COUNT = "UPDATE revisions SET number = number + 1 WHERE name = 'keys'"
# When a key was used changes all the time and means nothing to those who remember it.
WATCHED = {"orgs": "", "api_keys": "WHEN (old.last_used_at {is_} new.last_used_at)"}


def upgrade() -> None:
    op.execute("INSERT INTO revisions (name, number) VALUES ('keys', 0)")
    if op.get_bind().dialect.name == "sqlite":
        upgrade_sqlite()
    else:
        upgrade_postgresql()


def upgrade_sqlite() -> None:
    for table, when in WATCHED.items():
        op.execute(f"""CREATE TRIGGER count_changes_of_{table} AFTER UPDATE ON {table} {when.format(is_="IS")}
            BEGIN {COUNT}; END""")
    for change in ("UPDATE", "DELETE"):
        op.execute(f"""CREATE TRIGGER audit_refuses_{change.lower()} BEFORE {change} ON audit_entries
            BEGIN SELECT RAISE(ABORT, 'audit_entries is append-only'); END""")


def upgrade_postgresql() -> None:
    op.execute(f"""CREATE FUNCTION count_key_changes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        {COUNT}; RETURN NULL; END $$""")
    for table, when in WATCHED.items():
        op.execute(f"""CREATE TRIGGER count_changes_of_{table} AFTER UPDATE ON {table} FOR EACH ROW
            {when.format(is_="IS NOT DISTINCT FROM")} EXECUTE FUNCTION count_key_changes()""")
    op.execute("""CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$""")
    op.execute("""CREATE TRIGGER audit_refuses_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entries
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()""")


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for trigger in (
            *(f"count_changes_of_{table}" for table in WATCHED),
            "audit_refuses_update",
            "audit_refuses_delete",
        ):
            op.execute(f"DROP TRIGGER {trigger}")
    else:
        for table in WATCHED:
            op.execute(f"DROP TRIGGER count_changes_of_{table} ON {table}")
        op.execute("DROP TRIGGER audit_refuses_change ON audit_entries")
        op.execute("DROP FUNCTION count_key_changes()")
        op.execute("DROP FUNCTION refuse_change()")
    op.execute("DELETE FROM revisions WHERE name = 'keys'")
