"""Start PostgreSQL, with the options that are given. Standard library only.

A first start, one whose data folder is not there, copies the empty cluster that the image brings. Every start takes the
password of the role ``ledger`` from a file, so that another one holds from the next start on. Variables:

- ``PGDATA``: the data folder; the folder above it must be there and may be written.
- ``PASSWORD_FILE``: has the password and nothing else.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

EMPTY = Path("/usr/share/fairlead/postgres")
"""A cluster as initdb makes it, with the database and the role ``ledger``."""
_SERVER = "/usr/lib/postgresql/15/bin/postgres"
_OPTIONS = ("-c", "listen_addresses=*", "-c", "unix_socket_directories=/tmp")
_ROLE = "ledger"
_VERSION = "PG_VERSION"


def main(data: Path, password: str, options: list[str]) -> None:
    """Prepare the data folder and become the server."""
    if not data.exists():
        _copy(data)
    _check(data)
    # What a volume's group may do is not asked of a data folder: the server starts with one of its own only.
    data.chmod(0o700)
    _set_password(data, password)
    os.execv(_SERVER, [_SERVER, "-D", str(data), *_OPTIONS, *options])  # noqa: S606 -- it takes this process' place


def _copy(data: Path) -> None:
    """Copy the empty cluster, whole or not at all."""
    beside = data.with_name(f"{data.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(EMPTY, beside)
    beside.rename(data)


def _check(data: Path) -> None:
    made, own = (_version(folder) for folder in (data, EMPTY))
    if made != own:
        sys.exit(f"{data} is of PostgreSQL {made or 'no version'}, and this is {own}: dump it with that one first")


def _version(folder: Path) -> str:
    file = folder / _VERSION
    return file.read_text().strip() if file.exists() else ""


def _set_password(data: Path, password: str) -> None:
    """Set the role's password, before anybody can connect; what a crash has left is recovered by that, too."""
    quoted = password.replace("'", "''")
    command = [_SERVER, "--single", "-D", str(data), "-c", "log_statement=none", "-j", "postgres"]
    statement = f"ALTER ROLE {_ROLE} PASSWORD '{quoted}';\n"
    done = subprocess.run(command, input=statement, capture_output=True, text=True, check=False)
    if done.returncode or "ERROR" in done.stderr:
        sys.exit(f"the password cannot be set: {done.stderr.replace(password, '***')}")


if __name__ == "__main__":
    _PASSWORD = Path(os.environ["PASSWORD_FILE"]).read_text().strip()
    if not _PASSWORD:
        sys.exit("PASSWORD_FILE is empty: the role would have no password")
    main(Path(os.environ["PGDATA"]), _PASSWORD, sys.argv[1:])
