"""How skew is shown: a table of features, with the causes that there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.table import Table

from fairlead.skew.cause import Cause
from fairlead.skew.report import FeatureSkew, ModelSkew

_PIPED_WIDTH = 140
"""Columns where no terminal says how many it has; no name is folded."""
_MOST_NAMED = 5
"""Features that are named below the table, where they are all."""

WORDS: Final[Mapping[Cause, str]] = {
    Cause.STORE_ERROR: "store error",
    Cause.LATE_DATA: "late data",
    Cause.NEVER_WRITTEN: "never written",
    Cause.PUSH_LAG: "push lag",
    Cause.TTL: "ttl",
    Cause.NOT_OFFLINE: "not offline",
    Cause.VALUES_DIFFER: "values differ",
}
"""What causes are called."""


def print_skew(found: ModelSkew, most_skew: float) -> None:
    """Print one model's skew.

    Args:
        found: What was compared.
        most_skew: Share above which a feature stands out, 0 to 1.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _PIPED_WIDTH)
    variants = ", ".join(filter(None, found.variants))
    title = f"{found.model} {found.version}{f' ({variants})' if variants else ''}"
    console.print(f"{title}: {found.rows:,} rows served {found.first} to {found.last}", style="bold", soft_wrap=True)
    console.print(_table(found, most_skew))
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True)
    above = [feature.feature for feature in _worst_first(found) if feature.share > most_skew]
    verdict = f"{len(above)} of {len(found.features)} features differ in more than {most_skew:.2%} of the rows"
    named = ", ".join(above[:_MOST_NAMED]) + (f" and {len(above) - _MOST_NAMED} more" if above[_MOST_NAMED:] else "")
    console.print(f"{verdict}{': ' if above else ''}{named}", soft_wrap=True)
    console.print()


def _table(found: ModelSkew, most_skew: float) -> Table:
    table = Table(box=None, pad_edge=False)
    causes = [cause for cause in Cause if any(cause in feature.causes for feature in found.features)]
    table.add_column("feature", no_wrap=True)
    for name in ("compared", "differ", *(WORDS[cause] for cause in causes)):
        table.add_column(name, justify="right", no_wrap=True)
    for feature in _worst_first(found):
        shares = [_share(feature.causes.get(cause, 0), feature.compared) for cause in causes]
        style = "red" if feature.share > most_skew else None
        table.add_row(
            feature.feature, f"{feature.compared:,}", _share(feature.differ, feature.compared), *shares, style=style
        )
    return table


def _worst_first(found: ModelSkew) -> list[FeatureSkew]:
    return sorted(found.features, key=lambda feature: -feature.share)


def _share(amount: int, of: int) -> str:
    return f"{amount / of:.2%}" if amount else "0 %" if of else "-"
