"""The tables, on SQLite and PostgreSQL alike.

Nothing is kept per prediction but the outcomes that wait until their prediction is judged. Times are microseconds since
1970-01-01 UTC, units are what stands for them (``fairlead.feedback.keys``), never what the application calls them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

METADATA = MetaData()


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True, autoincrement=True)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _key(name: str, type_: type[Integer | LargeBinary]) -> Column[Any]:
    return Column(name, type_, primary_key=True, autoincrement=False)


EXPERIMENTS = Table(
    "experiments",
    METADATA,
    _id(),
    Column("salt", Text, nullable=False, unique=True),
    Column("design", Text),  # canonical JSON; null while servers tell of it and nobody has said what it is
    Column("digest", Text),
    Column("created_us", BigInteger, nullable=False),
    Column("touched_us", BigInteger, nullable=False),  # when something was last told of it
    Column("ended_us", BigInteger),  # from then on nothing of it changes
    Column("folded_us", BigInteger, nullable=False),  # outcomes of predictions up to then are in the sums
    _count("changes"),  # grows with whatever evidence is made from
    _count("erased"),  # units that were erased
    Column("purged_us", BigInteger),  # when all but design and record was removed
)

CELLS = Table(
    "cells",
    METADATA,
    _id(),
    Column("experiment_id", Integer, nullable=False),
    Column("phase", Integer, nullable=False),
    Column("variant", Text, nullable=False),
    _count("mismatched"),  # requests whose unit belongs to another arm
    UniqueConstraint("experiment_id", "phase", "variant"),
)
"""An arm in a phase."""

REVISIONS = Table(
    "revisions",
    METADATA,
    _key("cell_id", Integer),
    Column("revision", Text, primary_key=True),
    sqlite_with_rowid=False,
)
"""Which revisions answered for an arm in a phase."""

UNITS = Table(
    "units",
    METADATA,
    _key("cell_id", Integer),
    _key("unit", LargeBinary),
    Column("exposed_us", BigInteger),  # first exposure; null while only counts have come
    Column("covariate", Float),
    _count("requests"),
    _count("matured"),  # of them, those older than the outcome window
    _count("errors"),
    _count("degraded"),
    _count("latency_us"),
    Column("first_error", Float),  # errors per request of the first report that told of it
    sqlite_with_rowid=False,
)

FAILURES = Table(
    "failures",
    METADATA,
    _key("cell_id", Integer),
    _key("unit", LargeBinary),
    Column("failure", Text, primary_key=True),  # who failed, as servers and gateways say
    _count("errors"),
    sqlite_with_rowid=False,
)
"""Of a unit's errors, those of which it is known who failed."""

RIPENING = Table(
    "ripening",
    METADATA,
    _key("cell_id", Integer),
    _key("minute", BigInteger),  # when they were told, since 1970-01-01 UTC
    _key("unit", LargeBinary),
    _count("requests"),
    sqlite_with_rowid=False,
)
"""Requests of units that are not older than the outcome window yet."""

UNIT_SUMS = Table(
    "unit_sums",
    METADATA,
    _key("cell_id", Integer),
    _key("metric", Integer),  # place in the design's metrics
    _key("unit", LargeBinary),
    Column("n", Integer, nullable=False),  # requests, at most the design's requests_per_unit
    Column("x", Float, nullable=False),  # sum of their values, added in order of prediction time
    Column("first", Float, nullable=False),  # value of the first of them
    Column("histogram", Text),  # of a metric of kind Quantile: requests by bucket, JSON
    sqlite_with_rowid=False,
)

PENDING = Table(
    "pending",
    METADATA,
    _key("experiment_id", Integer),
    _key("time_us", BigInteger),  # of the prediction
    _key("unit", LargeBinary),
    _key("nonce", LargeBinary),  # the token's; of an outcome told by unit, made from its id
    _key("row", Integer),
    _key("metric", Integer),
    Column("cell_id", Integer, nullable=False),
    Column("by_unit", Boolean, nullable=False),
    Column("value", Float, nullable=False),
    Index(
        "pending_by_unit",
        *("experiment_id", "unit", "nonce", "row", "metric"),
        unique=True,
        sqlite_where=text("by_unit"),
        postgresql_where=text("by_unit"),
    ),
    sqlite_with_rowid=False,
)
"""Outcomes that wait: one told twice is found here, and once folded it is late."""

SERVERS = Table(
    "servers",
    METADATA,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("told_until", BigInteger, nullable=False),  # every report below this number is in
    _count("dropped"),  # requests that found no room there
    Column("seen_us", BigInteger, nullable=False),
)

REPORTS = Table(
    "reports",
    METADATA,
    _key("server_id", Integer),
    _key("sequence", BigInteger),
    sqlite_with_rowid=False,
)
"""Reports that are in and not yet covered by ``servers.told_until``."""

BLOCKS = Table(
    "blocks",
    METADATA,
    _key("cell_id", Integer),
    _key("minute", BigInteger),
    _key("server_id", Integer),
    _count("requests"),
    _count("errors"),
    _count("latency_us"),
    Column("histogram", Text),  # requests by bucket of their latency, JSON
    sqlite_with_rowid=False,
)

FATES = Table(
    "fates",
    METADATA,
    _key("experiment_id", Integer),  # 0 where it is not known
    Column("fate", Text, primary_key=True),
    _count("count"),
    sqlite_with_rowid=False,
)
"""How many outcomes came to what."""

RECORDS = Table(
    "records",
    METADATA,
    _key("experiment_id", Integer),
    _key("number", Integer),  # from 0
    Column("record", Text, nullable=False),
    Column("decided_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""What was decided; never changed."""

LOOKS = Table(
    "looks",
    METADATA,
    _key("experiment_id", Integer),
    _key("phase", Integer),
    _key("at_us", BigInteger),
    Column("look", Text, nullable=False),  # JSON, as the analysis made it
    sqlite_with_rowid=False,
)
"""What the analysis said, over time."""

VERDICTS = Table(
    "verdicts",
    METADATA,
    _key("experiment_id", Integer),
    Column("phase", Integer, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("action", Text),  # what was decided; null before
    sqlite_with_rowid=False,
)
"""What was said of each experiment last, for a list of them."""

GROUNDS = Table(
    "grounds",
    METADATA,
    _key("experiment_id", Integer),
    _key("phase", Integer),
    Column("reason", Text, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("evidence", Text, nullable=False),  # JSON
    Column("report", Text, nullable=False),  # JSON
    sqlite_with_rowid=False,
)
"""The last look at each phase that a decision may rest on, with what it saw; until the experiment ends."""
