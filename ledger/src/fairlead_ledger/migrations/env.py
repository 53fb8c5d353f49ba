"""What Alembic runs: migrations on the connection that it is given, or as SQL text without one."""

from __future__ import annotations

from alembic import context

from fairlead_ledger.store.schema import METADATA

_CONFIG = context.config


def _configure() -> None:
    if context.is_offline_mode():
        context.configure(url=_CONFIG.get_main_option("sqlalchemy.url"), target_metadata=METADATA, literal_binds=True)
    else:
        connection = _CONFIG.attributes["connection"]
        context.configure(connection=connection, target_metadata=METADATA, transactional_ddl=True)


_configure()
with context.begin_transaction():
    context.run_migrations()
