"""What is looked up for every outcome and never changes, remembered: designs, and the numbers of arms."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from threading import Lock

from fairlead_ledger.store import experiments
from fairlead_ledger.store.database import Database
from fairlead_ledger.store.experiments import Cell, Experiment

_MOST = 10_000


class Directory:
    """Designs and numbers of arms, read once each; safe to use from any thread."""

    def __init__(self, database: Database) -> None:
        """Begin with nothing remembered."""
        self._database = database
        self._lock = Lock()
        self._experiments: dict[str, Experiment] = {}
        self._cells: dict[Cell, int] = {}

    def experiments(self, salts: Collection[str]) -> Mapping[str, Experiment]:
        """Return experiments that are declared, by salt; of each only what never changes may be used."""
        missing = [salt for salt in salts if salt not in self._experiments]
        if missing:
            with self._database.reading() as connection:
                found = experiments.find(connection, missing)
            self._remember_experiments({salt: one for salt, one in found.items() if one.design})
        known = self._experiments
        return {salt: known[salt] for salt in salts if salt in known}

    def ids(self, salts: Collection[str], now_us: int) -> Mapping[str, int]:
        """Return the numbers of experiments; those that are not declared get one."""
        known = {salt: one.id for salt, one in self.experiments(salts).items()}
        missing = [salt for salt in salts if salt not in known]
        if not missing:
            return known
        with self._database.writing() as connection:
            experiments.mention(self._database, connection, missing, now_us)
            return known | {salt: one.id for salt, one in experiments.find(connection, missing).items()}

    def cells(self, cells: Collection[Cell]) -> Mapping[Cell, int]:
        """Return the numbers of arms in phases; those that have none get one."""
        missing = {cell for cell in cells if cell not in self._cells}
        if missing:
            with self._database.writing() as connection:
                found = experiments.number_cells(self._database, connection, missing)
            with self._lock:
                self._cells = (self._cells if len(self._cells) < _MOST else {}) | dict(found)
        known = self._cells
        return {cell: known[cell] for cell in cells}

    def _remember_experiments(self, found: Mapping[str, Experiment]) -> None:
        with self._lock:
            self._experiments = (self._experiments if len(self._experiments) < _MOST else {}) | dict(found)
