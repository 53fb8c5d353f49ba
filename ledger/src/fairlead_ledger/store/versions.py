"""Which version a database's tables have, and how they are brought to this one."""

from __future__ import annotations

import io
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import fairlead_ledger.migrations
from fairlead_ledger.store.database import Database, url_of

_ALL = 0
"""Stands for all experiments in the lock that migrations take."""


def newest() -> str:
    """Return the version that this code works with."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError("the package has no migrations")
    return head


def version(database: Database) -> str | None:
    """Return the version of a database's tables; None if it is empty."""
    with database.reading() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def serves(found: str | None) -> bool:
    """Return whether this code works with tables of a version: its own, or one that it does not know.

    The latter is a later one: an upgrade migrates first, and the release before goes on until its pods are replaced. So
    migrations add; what they replace goes with the release after.
    """
    if found is None:
        return False
    known = {one.revision for one in ScriptDirectory.from_config(_config()).walk_revisions()}
    return found == newest() or found not in known


def upgrade(database: Database) -> None:
    """Bring a database to this version, all or nothing; one that several processes upgrade at once is upgraded once."""
    with database.writing() as connection:
        database.own(connection, _ALL)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def upgrade_sql(url: str) -> str:
    """Return the SQL that brings an empty database to this version, for whoever runs it by hand.

    Args:
        url: Address of a database of the same kind; nothing is connected to.
    """
    text = io.StringIO()
    config = Config(output_buffer=text)
    _point(config)
    config.set_main_option("sqlalchemy.url", url_of(url).render_as_string(hide_password=True).replace("%", "%%"))
    command.upgrade(config, "head", sql=True)
    return text.getvalue()


def _config() -> Config:
    config = Config()
    _point(config)
    return config


def _point(config: Config) -> None:
    folder = Path(next(iter(fairlead_ledger.migrations.__path__)))
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
