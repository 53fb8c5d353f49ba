"""Which versions of the tables a ledger works with."""

from __future__ import annotations

from pathlib import Path

from fairlead_ledger.store import versions
from fairlead_ledger.store.database import Database


def test_a_ledger_works_with_its_own_tables_and_with_those_of_a_later_release() -> None:
    assert versions.serves(versions.newest())
    assert versions.serves("9999"), "an upgrade migrates first, and pods of the release before go on meanwhile"


def test_a_ledger_does_not_work_with_an_empty_database(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    assert not versions.serves(versions.version(database))
    versions.upgrade(database)
    assert versions.serves(versions.version(database))
    database.close()
