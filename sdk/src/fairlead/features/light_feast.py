"""Imports Feast without what neither serving nor training asks of it: in 1.6 s where it takes 7.

``import feast`` imports its feature server, its web page and its SQL registry with FastAPI and SQLAlchemy, and checks
the types of arguments by rewriting 20 modules (typeguard). :func:`install` has all of that wait until it is asked for,
with two means of the import system: a finder, and modules that run when they are first touched. Nothing is replaced
for good and nothing is missing: whoever does start a feature server, or has a SQL registry, gets it, later. What is
lost is typeguard's own message where a definition is given an argument of the wrong type; `feast apply` still has it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

from fairlead.features.late_package import LateLoader, is_late, spec_within

_FEAST = "feast"
_UNTIL_TOUCHED = frozenset({"feast.feature_server", "feast.ui_server"})
"""Imported by Feast as modules, and used when a server is started."""
_SHELLS = {"fastapi": {"status": "starlette.status"}}
"""Packages of which Feast needs small modules, not what the package itself imports; and where it has them from."""
_UNTIL_USED = frozenset({"pandas", "pyarrow.dataset", "pyarrow.parquet", "pyarrow.substrait", "jinja2", "dill"})
"""Packages of which Feast, while it is imported, does nothing but name classes in annotations."""
_CLASS_UNTIL_CALLED = {"feast.infra.registry.sql": "SqlRegistry"}
"""Modules of which Feast calls one class, if the configuration says so."""


def install() -> None:
    """Have Feast imported lightly from now on, by whoever imports it; nothing happens if it is imported already."""
    if _FEAST not in sys.modules and not any(isinstance(finder, _LightFeast) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LightFeast())


class _LightFeast(MetaPathFinder):
    """Finds Feast's modules, and while they are imported what they should not import."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._importing: dict[int, int] = {}
        """How many modules of Feast each thread is in."""
        self._typechecked: Any = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return how a module is loaded; None for what is none of ours."""
        ours = name == _FEAST or name.startswith(f"{_FEAST}.")
        inside = self._is_importing()
        if not ours:
            late = sys.modules.get(name.rpartition(".")[0])
            if is_late(late) and late is not None:
                return spec_within(late, name)
            if not (inside and (name in _SHELLS or name in _UNTIL_USED)):
                return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return spec
        if name in _UNTIL_USED:
            spec.loader = LateLoader(name, spec.loader.path, only_named=self._is_importing)
        elif name in _SHELLS:
            spec.loader = _ShellLoader(name, spec.loader.path)
        elif name in _UNTIL_TOUCHED:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        elif name in _CLASS_UNTIL_CALLED and inside:
            spec.loader = _StandInLoader(_CLASS_UNTIL_CALLED[name])
        else:
            spec.loader = _UncheckedLoader(name, spec.loader.path, self)
        return spec

    def _is_importing(self) -> bool:
        """Whether this thread is in a module of Feast."""
        return threading.get_ident() in self._importing

    @contextmanager
    def unchecked(self) -> Iterator[None]:
        """Import a module of Feast; ``typeguard.typechecked`` changes nothing meanwhile."""
        typeguard: Any = importlib.import_module("typeguard")
        thread = threading.get_ident()
        with self._lock:
            if not self._importing:
                self._typechecked, typeguard.typechecked = typeguard.typechecked, _as_it_is
            self._importing[thread] = self._importing.get(thread, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._importing[thread] -= 1
                if not self._importing[thread]:
                    del self._importing[thread]
                if not self._importing:
                    typeguard.typechecked = self._typechecked


class _UncheckedLoader(SourceFileLoader):
    """Runs a module of Feast without having its arguments checked."""

    def __init__(self, name: str, path: str, finder: _LightFeast) -> None:
        super().__init__(name, path)
        self._finder = finder

    def exec_module(self, module: ModuleType) -> None:
        """Run the module."""
        with self._finder.unchecked():
            super().exec_module(module)
        if module.__name__ == _FEAST:
            _forget_stand_ins()


class _ShellLoader(SourceFileLoader):
    """Leaves a package empty until something of it is asked for that is none of its modules."""

    def exec_module(self, module: ModuleType) -> None:
        """Make the module a shell of itself."""
        module.__class__ = _Shell


class _Shell(ModuleType):
    """A package that has not run yet."""

    def __getattr__(self, name: str) -> Any:
        taken_from = _SHELLS[self.__name__].get(name)
        if taken_from is not None:
            return importlib.import_module(taken_from)
        if name.startswith("__") or importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
            raise AttributeError(name)  # the import system imports a package's module itself, and sets it here
        spec = self.__spec__
        self.__class__ = ModuleType  # type: ignore[assignment]  # it becomes an ordinary module again
        if spec is not None and isinstance(spec.loader, _ShellLoader):
            SourceFileLoader.exec_module(spec.loader, self)
        return getattr(self, name)


class _StandInLoader(Loader):
    """Makes a module that has a stand-in for one class, for the time in which Feast is imported."""

    def __init__(self, name: str) -> None:
        self._name = name

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module."""
        setattr(module, self._name, _StandIn(self._name, (), {"__module__": module.__name__}))


class _StandIn(type):
    """A class whose module is imported when it is first used."""

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        """Make an instance of the real class."""
        return cls._real()(*arguments, **named)

    def __instancecheck__(cls, instance: Any) -> bool:
        """Say whether ``instance`` is one of the real class."""
        return cls.__module__ in sys.modules and isinstance(instance, cls._real())

    def _real(cls) -> Any:
        return getattr(importlib.import_module(cls.__module__), cls.__name__)


def _forget_stand_ins() -> None:
    """Let the next who imports a module that has a stand-in import the module itself."""
    for name in _CLASS_UNTIL_CALLED:
        module = sys.modules.get(name)
        if module is not None and isinstance(getattr(module.__spec__, "loader", None), _StandInLoader):
            del sys.modules[name]
            package, _, last = name.rpartition(".")
            vars(sys.modules[package]).pop(last, None)


def _as_it_is(checked: Any = None, **_: Any) -> Any:
    return _as_it_is if checked is None else checked
