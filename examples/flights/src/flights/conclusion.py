"""How the experiment ended: asked of the ledger while it still answers, and kept beside the figures."""

from __future__ import annotations

from pathlib import Path

import httpx

from fairlead.experiment.report import Report, Role
from flights.outcomes import Told
from flights.report import Conclusion
from flights.watch import Watch

_TIMEOUT_S = 20.0


def conclude(watch: Watch, folder: Path, root: Path, told: Told) -> Conclusion:
    """Return how the experiment ended; its page and its decision record are kept in ``folder``.

    Args:
        watch: What `fairlead up` publishes.
        folder: Where files are kept.
        root: The repository's root, which files are named from.
        told: What became of the labels.

    Raises:
        HTTPStatusError: The ledger refuses.
    """
    experiment, decision = watch.experiment, watch.decision
    page = experiment.get("page")
    address = str(page).replace("/experiments/", "/v1/experiments/")
    with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as client:
        report = Report.model_validate_json(_get(client, f"{address}/analysis"))
        page_file = _kept(folder / "experiment.html", _get(client, str(page)))
        record = None
        if decision is not None and decision.get("record"):
            record = _kept(folder / "record.json", _get(client, decision["record"]))
    return Conclusion(
        verdict=report.verdict.value,
        reason=report.reason.value,
        decision=decision["verdict"] if decision else None,
        decided_because=decision["reason"] if decision else None,
        winner=decision.get("variant") if decision else None,
        decided_at=decision["at"] if decision else None,
        page=page,
        page_file=str(page_file.relative_to(root)),
        record=str(record.relative_to(root)) if record else None,
        lines=tuple(_lines(report)),
        outcomes=told,
    )


def _lines(report: Report) -> list[str]:
    return [report.message, *(one.message for one in report.metrics if one.role is not Role.ACTIVITY)]


def _get(client: httpx.Client, url: str) -> bytes:
    answer = client.get(url)
    answer.raise_for_status()
    return answer.content


def _kept(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file
