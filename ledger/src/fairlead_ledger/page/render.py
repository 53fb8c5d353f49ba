"""The page as HTML: one file, with its style and pictures inside, without scripts."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fairlead_ledger.page.parts import Page


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the list of experiments."""

    salt: str
    address: str
    tone: str
    """Class of its colour."""
    badge: str
    line: str


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fairlead_ledger.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["css"] = Markup(_css())  # noqa: S704 -- our own file, not anybody's words
    return environment


@cache
def _css() -> str:
    return resources.files("fairlead_ledger.page").joinpath("templates/page.css").read_text("utf-8")


def headers() -> dict[str, str]:
    """Return what a page is sent with: nothing is loaded, run, framed or sent anywhere."""
    style = base64.b64encode(hashlib.sha256(_css().encode()).digest()).decode()
    allowed = ("default-src 'none'", f"style-src 'sha256-{style}'", "img-src data:")
    never = ("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'")
    return {
        "content-security-policy": "; ".join((*allowed, *never)),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }


def experiment_html(page: Page) -> str:
    """Return the page of one experiment."""
    return _render("experiment.html.j2", page=page)


def list_html(entries: tuple[Entry, ...], *, left_out: int = 0) -> str:
    """Return the page that lists experiments.

    Args:
        entries: The latest first.
        left_out: How many older ones there are.
    """
    return _render("list.html.j2", entries=entries, left_out=left_out)


def refusal_html(message: str) -> str:
    """Return the page that says why nothing is shown."""
    return _render("refusal.html.j2", message=message)


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)
