"""What a page is made of: texts, tables and drawings, part by part."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.experiment.words import Tone
from fairlead_ledger.page.charts import Drawing, PathDrawing


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and what it is."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Figures, one column per arm or treatment."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing and its words."""

    key: str
    over_time: bool
    drawing: Drawing | PathDrawing
    title: str
    description: str
    caption: str


@dataclass(frozen=True, slots=True)
class MetricPart:
    """What is said of one metric in one phase."""

    key: str
    role: str
    title: str
    estimand: str
    pictures: tuple[Picture, ...]
    table: Table
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PhasePart:
    """What is said of one phase."""

    key: str
    title: str
    lead: tuple[str, ...]
    metrics: tuple[MetricPart, ...]
    units: Table
    units_notes: tuple[str, ...]
    ratio: Table
    ratio_state: str
    ratio_words: str
    ratio_tone: Tone


@dataclass(frozen=True, slots=True)
class Link:
    """An address with its words."""

    text: str
    address: str


@dataclass(frozen=True, slots=True)
class Page:
    """The page of one experiment."""

    salt: str
    deployment: str
    id: str
    home: str
    tone: Tone
    badge: str
    headline: str
    done: str
    not_meant: tuple[str, ...]
    facts: tuple[Fact, ...]
    phases: tuple[PhasePart, ...]
    reading: tuple[str, ...]
    links: tuple[Link, ...]
    small: tuple[str, ...]
