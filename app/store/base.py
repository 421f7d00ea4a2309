"""The declarative base and the column types that all tables share."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Double, MetaData
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

Json = JSON(none_as_null=True)


class Base(AsyncAttrs, DeclarativeBase):
    """Columns: `*_at` are epoch seconds (float, UTC), `*_micros` integer micro-dollars."""

    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {int: BigInteger, float: Double, dict[str, Any]: Json, list[Any]: Json}


class db_now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function it is
    """The database's clock, by which every lease is judged; epoch seconds."""

    type = Double()
    inherit_cache = True


class utc_month(FunctionElement[int]):  # noqa: N801
    """When the month began, in UTC, that a moment of whole epoch seconds lies in."""

    type = BigInteger()
    inherit_cache = True


@compiles(utc_month, "sqlite")
def _sqlite_month(element: utc_month, compiler: SQLCompiler, **kw: Any) -> str:
    moment = compiler.process(element.clauses, **kw)
    return f"CAST(strftime('%s', {moment}, 'unixepoch', 'start of month') AS INTEGER)"


@compiles(utc_month, "postgresql")
def _postgresql_month(element: utc_month, compiler: SQLCompiler, **kw: Any) -> str:
    moment = compiler.process(element.clauses, **kw)
    return f"CAST(extract(epoch FROM date_trunc('month', to_timestamp({moment}), 'UTC')) AS BIGINT)"


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _postgresql_now(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"
