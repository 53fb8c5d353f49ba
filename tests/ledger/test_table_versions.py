"""Which versions of the tables a ledger works with."""

from __future__ import annotations

import subprocess
import sys
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


def test_a_database_that_does_not_answer_is_told_in_the_message_without_its_password() -> None:
    database = "postgresql://ledger:secret@127.0.0.1:1/ledger"
    command = [sys.executable, "-m", "fairlead_ledger", "migrate", "--wait", "0", "--database", database]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 3
    assert done.stderr.startswith("fairlead_ledger: the database cannot be migrated: ")
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
