"""A package that runs when it is first used, not when it is imported.

Python's own ``LazyLoader`` runs a module when any attribute is asked for. Code that names a package's classes in
annotations asks while it is imported, and never again; for that time there are stand-ins.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import Any

_RUNNING = threading.RLock()
_OF_PACKAGES = frozenset({"__version__", "__all__"})
"""Names with underscores for which a package runs; others are the import system's, which looks if they are there."""


class LateLoader(SourceFileLoader):
    """Leaves a package empty until it is used."""

    def __init__(self, name: str, path: str, *, only_named: Callable[[], bool]) -> None:
        """Load a package later.

        Args:
            name: Of the package.
            path: Of its ``__init__.py``.
            only_named: Whether classes are asked for by code that only names them, at the moment.
        """
        super().__init__(name, path)
        self.only_named = only_named

    def exec_module(self, module: ModuleType) -> None:
        """Make the module an empty package."""
        module.__class__ = _Late


class _Late(ModuleType):
    """A package that has not run yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _OF_PACKAGES:
            raise AttributeError(name)
        loader = _loader_of(self)
        if loader is not None and name[:1].isupper() and loader.only_named():
            return StandIn(name, (), {"__module__": self.__name__})
        if run(self):
            return getattr(self, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)


class StandIn(type):
    """A class that becomes another's when it is used."""

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        """Make an instance of the real class."""
        return cls.real()(*arguments, **named)

    def __instancecheck__(cls, instance: Any) -> bool:
        """Say whether ``instance`` is one of the real class."""
        package = sys.modules[cls.__module__]
        return not isinstance(package, _Late) and isinstance(instance, cls.real())

    def __subclasscheck__(cls, other: type) -> bool:
        """Say whether ``other`` is a subclass of the real class."""
        package = sys.modules[cls.__module__]
        return other is cls or (not isinstance(package, _Late) and issubclass(other, cls.real()))

    def __getattr__(cls, name: str) -> Any:
        """Return an attribute of the real class."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls.real(), name)

    def real(cls) -> Any:
        """Return the class that it stands for."""
        package = sys.modules[cls.__module__]
        run(package)
        return getattr(package, cls.__name__)


def is_late(module: object) -> bool:
    """Return whether a module is a package that has not run yet."""
    return isinstance(module, _Late)


def run(package: ModuleType) -> bool:
    """Run a package, unless that has been done; False while it is running in this very thread."""
    with _RUNNING:
        if not isinstance(package, _Late):
            return True
        loader = _loader_of(package)
        if loader is None or vars(package).get("_is_running"):
            return False
        vars(package)["_is_running"] = True
        try:
            SourceFileLoader.exec_module(loader, package)
            package.__class__ = ModuleType  # type: ignore[assignment]  # it becomes an ordinary module again
        finally:
            del vars(package)["_is_running"]
    return True


def run_named_by(function: Callable[..., Any]) -> None:
    """Run the packages that a function names, so that its first call need not wait for them."""
    code, found = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    for name in () if code is None else code.co_names:
        package = found.get(name)
        if isinstance(package, _Late):
            run(package)


def spec_within(package: ModuleType, name: str) -> ModuleSpec | None:
    """Run a package of which a module is imported; return how that module is found if it is there then, else None."""
    run(package)
    module = sys.modules.get(name)
    if module is None or module.__spec__ is None:
        return None
    return ModuleSpec(name, _ThereLoader(module, module.__spec__), is_package=hasattr(module, "__path__"))


class _ThereLoader(Loader):
    """Gives a module that is there already."""

    def __init__(self, module: ModuleType, spec: ModuleSpec) -> None:
        self._module = module
        self._spec = spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module."""
        del spec
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is."""
        module.__spec__ = self._spec


def _loader_of(package: ModuleType) -> LateLoader | None:
    loader = None if package.__spec__ is None else package.__spec__.loader
    return loader if isinstance(loader, LateLoader) else None
