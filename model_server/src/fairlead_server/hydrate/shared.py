"""What several models of a process hold together: made for the first, let go of by the last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


@dataclass(slots=True)
class _Held:
    what: Any
    close: Callable[[], Awaitable[None]]
    holders: int = 0


class Lease(Generic[_T]):
    """One holder's part in something."""

    def __init__(self, what: _T, give_back: Callable[[], Awaitable[None]]) -> None:
        """Make a lease; see :meth:`Shared.take`."""
        self.what = what
        self._give_back: Callable[[], Awaitable[None]] | None = give_back

    async def close(self) -> None:
        """Give it back; a second time does nothing."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            await give_back()


class Shared:
    """Things by what names them; of one event loop."""

    def __init__(self) -> None:
        """Start with nothing held."""
        self._held: dict[Hashable, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, name: Hashable, make: Callable[[], _T], close: Callable[[_T], Awaitable[None]]) -> Lease[_T]:
        """Return a part in what ``name`` names.

        Args:
            name: What it is; all that is alike shares one.
            make: Makes it, if nobody holds it yet.
            close: Lets go of it, once everybody has given it back.
        """
        held = self._held.get(name)
        if held is None:
            what = make()
            held = self._held[name] = _Held(what, lambda: close(what))
        held.holders += 1
        return Lease(held.what, lambda: self._give_back(name, held))

    async def _give_back(self, name: Hashable, held: _Held) -> None:
        held.holders -= 1
        if not held.holders:
            del self._held[name]
            await held.close()
