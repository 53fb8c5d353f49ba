"""What is kept for how long, decided on, and seen by several ledgers at once, on SQLite and PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, inspect, select

from fairlead.experiment.design import Effect, Guardrail, Kind, Scale, Source
from fairlead.experiment.evidence import ArmEvidence
from fairlead.experiment.tail import edge_of
from fairlead.feedback.messages import ExposureReport, Outcome, OutcomeAnswer
from fairlead_ledger.errors import Conflict, NotFound, StartupError
from fairlead_ledger.ledger import Ledger
from fairlead_ledger.store import records, versions
from fairlead_ledger.store.database import Database, url_of
from fairlead_ledger.store.experiments import State, first_difference
from fairlead_ledger.store.schema import BLOCKS, METADATA, PENDING, RIPENING, UNIT_SUMS, UNITS
from support.ledger_truth import Told, kept, truth
from support.ledgers import (
    HOUR_US,
    MINUTE_US,
    NOON_US,
    ROOT,
    SALT,
    StillClock,
    arm,
    arm_of,
    design,
    exposure,
    metric,
    token,
)
from support.postgresql import PostgresqlServer

UNITS_SEEN = [f"u{number}" for number in range(30)]
TREATED = next(unit for unit in UNITS_SEEN if arm_of(unit) == "boosted")
LATER_US = NOON_US + 2 * HOUR_US
DAY_S = 86400.0


def tell(ledger: Ledger, *told: dict[str, Any]) -> OutcomeAnswer:
    return ledger.take_outcomes([ledger.judge([Outcome.model_validate(one) for one in told], lambda _: True)])[0]


def report(sequence: int = 0, **parts: Any) -> ExposureReport:
    return ExposureReport.model_validate({"server": "s1", "sequence": sequence, **parts})


def seen(ledger: Ledger, at_us: int = LATER_US) -> ArmEvidence:
    _, evidence = ledger.evidence_of(SALT, at_us)
    return evidence.phases[0].arms["boosted"]


@pytest.fixture
def running(ledger: Ledger) -> Ledger:
    """Return a ledger with one experiment, a unit of it, and an outcome that waits."""
    ledger.declare(design())
    minute = NOON_US // MINUTE_US
    block = arm(variant="boosted", minute=minute, requests=3)
    unit = arm(TREATED, requests=3)
    ledger.take_reports([report(exposures=[exposure(TREATED)], counts=[unit], blocks=[block])])
    assert tell(ledger, {"prediction_id": token(TREATED), "actual": 1}).accepted == 1
    return ledger


def rows(ledger: Ledger) -> dict[str, int]:
    with ledger.database.reading() as connection:
        tables = (UNITS, UNIT_SUMS, PENDING, RIPENING, BLOCKS)
        return {one.name: connection.scalar(select(func.count()).select_from(one)) or 0 for one in tables}


def test_an_erased_unit_leaves_nothing_behind_but_the_count(running: Ledger) -> None:
    assert running.erase(SALT, TREATED)
    assert not running.erase(SALT, TREATED)
    assert running.experiment(SALT).erased == 1
    assert rows(running) == {"units": 0, "unit_sums": 0, "pending": 0, "ripening": 0, "blocks": 1}
    assert seen(running).units == 0


def test_a_unit_is_erased_from_its_sums_too(running: Ledger) -> None:
    assert seen(running).metrics["brier"].n == 1
    assert running.erase(SALT, TREATED)
    assert seen(running).metrics["brier"].n == 0


def test_nothing_of_an_experiment_changes_once_it_was_decided(running: Ledger, clock: StillClock) -> None:
    clock.time_us = LATER_US
    with running.deciding(SALT, clock.now_us()) as (connection, experiment, evidence):
        records.add(running.database, connection, experiment.id, '{"verdict": "Pass"}', clock.now_us())
        records.end(connection, experiment.id, clock.now_us())
    assert running.experiment(SALT).state is State.ENDED
    late = tell(running, {"prediction_id": token(TREATED, LATER_US, number=9), "actual": 1})
    assert late.refused[0].message == "the experiment has ended"
    assert running.take_reports([report(7, counts=[arm(TREATED, requests=5)])]) == [True]
    clock.time_us += 9 * HOUR_US
    assert running.evidence_of(SALT, LATER_US)[1] == evidence
    with running.database.reading() as connection:
        assert records.latest(connection, experiment.id) == '{"verdict": "Pass"}'


def test_a_decision_that_is_not_made_changes_nothing(running: Ledger) -> None:
    def decide() -> None:
        with running.deciding(SALT, LATER_US) as (connection, experiment, _):
            records.end(connection, experiment.id, LATER_US)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        decide()
    assert running.experiment(SALT).state is State.RUNNING
    assert seen(running).metrics["brier"].n == 1


def test_units_are_removed_when_an_experiment_has_ended_for_long_and_its_record_stays(
    running: Ledger, clock: StillClock
) -> None:
    with running.deciding(SALT, LATER_US) as (connection, experiment, _):
        records.add(running.database, connection, experiment.id, "{}", LATER_US)
        records.end(connection, experiment.id, LATER_US)
    clock.time_us = LATER_US + round(9 * DAY_S * 1e6)
    running.purge(10 * DAY_S)
    assert running.experiment(SALT).state is State.ENDED
    clock.time_us += round(2 * DAY_S * 1e6)
    running.purge(10 * DAY_S)
    assert running.experiment(SALT).state is State.PURGED
    assert set(rows(running).values()) == {0}
    assert running.experiment(SALT).design == design()
    with pytest.raises(Conflict, match="no longer kept"):
        running.evidence_of(SALT, clock.now_us())
    with running.database.reading() as connection:
        assert records.latest(connection, experiment.id) == "{}"


def test_an_experiment_that_nobody_tells_of_ends_by_itself(running: Ledger, clock: StillClock) -> None:
    clock.time_us += round(11 * DAY_S * 1e6)
    running.purge(10 * DAY_S)
    assert running.experiment(SALT).state is State.PURGED


def test_an_unknown_experiment_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="no experiment"):
        ledger.evidence_of(SALT, NOON_US)


def test_the_first_field_that_differs_is_named() -> None:
    harder = Guardrail(metric=metric("click", kind=Kind.PROPORTION), margin=Effect(size=0.2, scale=Scale.RELATIVE))
    assert first_difference(design(), design()) is None
    assert first_difference(design(), design(alpha=0.01)) == "alpha"
    assert first_difference(design(), design(guardrails=(harder,))) == "guardrails[0].margin.size"
    assert first_difference(design(), design(treatments=("a", "b"))) == "treatments"


def test_two_ledgers_on_one_database_keep_exactly_what_they_accepted(
    ledger: Ledger, database_url: str, clock: StillClock
) -> None:
    """Four threads tell everything to one of two ledgers, in any order, while both fold."""
    ledger.declare(design())
    source = np.random.default_rng(4)
    told = [
        Told(str(source.choice(UNITS_SEEN)), NOON_US + n, n, float(np.float32(source.random())), n % 2)
        for n in range(200)
    ]
    others = [Ledger(Database(database_url), ROOT, clock, most_folded=17) for _ in range(2)]
    reports = [report(n, counts=[arm(unit, requests=1) for unit in UNITS_SEEN]) for n in range(8)]

    def work(worker: int) -> list[Told]:
        mine, accepted = others[worker % 2], []
        order = np.random.default_rng(worker).permutation(len(told)).reshape(10, 20)
        for number, part in enumerate(order):
            batch = [told[place] for place in part]
            judged = [mine.judge([Outcome.model_validate(one.outcome)], lambda _: True) for one in batch]
            answers = mine.take_outcomes(judged)
            accepted += [one for one, answer in zip(batch, answers, strict=True) if answer.accepted]
            mine.take_reports([reports[(number + worker) % len(reports)]])
            mine.evidence_of(SALT, NOON_US + HOUR_US + number * 10)
        return accepted

    with ThreadPoolExecutor(4) as pool:
        accepted = [one for each in pool.map(work, range(4)) for one in each]
    ledger.evidence_of(SALT, LATER_US)
    assert len(accepted) == len(set(accepted))
    assert kept(ledger.database) == truth(accepted, most=5)
    with ledger.database.reading() as connection:
        assert connection.scalar(select(func.sum(UNITS.c.requests))) == len(reports) * len(UNITS_SEEN)
    for one in others:
        one.database.close()


def test_two_ledgers_that_fold_the_same_fold_it_once(ledger: Ledger, clock: StillClock) -> None:
    ledger.declare(design())
    told = [Told(UNITS_SEEN[n % 30], NOON_US + n // 5, n, n % 64 / 64, n % 2) for n in range(300)]
    tell(ledger, *(one.outcome for one in told))
    others = [Ledger(ledger.database, ROOT, clock, most_folded=7) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda one: one.evidence_of(SALT, LATER_US), others))
    assert kept(ledger.database) == truth(told, most=5)


QUANTILES = (
    metric("latency_ms_p90", Source.SYSTEM, Kind.QUANTILE, quantile=0.9),
    metric("wait", kind=Kind.QUANTILE, quantile=0.5),
)


def test_quantiles_are_kept_as_counts_by_bucket(ledger: Ledger) -> None:
    margin = Effect(size=0.1, scale=Scale.RELATIVE)
    ledger.declare(design(guardrails=tuple(Guardrail(metric=one, margin=margin) for one in QUANTILES)))
    minute = NOON_US // MINUTE_US
    counts = [{int(edge_of(value)): 5 for value in values} for values in ((1.0, 2.0), (2.0, 300.0))]
    for number, latency in enumerate(counts):
        block = arm(variant="boosted", minute=minute, requests=10, latency_counts=latency)
        assert ledger.take_reports([report(number, exposures=[exposure(TREATED)], blocks=[block])]) == [True]
    for number, value in enumerate((1.0, 1.0, 64.0)):
        told = {"prediction_id": token(TREATED, NOON_US + number), "metric": "wait", "value": value}
        assert tell(ledger, told).accepted == 1
    tails = seen(ledger).tails
    latencies = {tail.edge: tail.sums for tail in tails["latency_ms_p90"]}
    assert (latencies[int(edge_of(2.0))].n, latencies[int(edge_of(2.0))].x) == (20, 15)
    waits = {tail.edge: tail.sums for tail in tails["wait"]}
    assert (waits[int(edge_of(64.0))].n, waits[int(edge_of(64.0))].x) == (3, 1)


def test_the_migrations_make_the_tables_that_the_code_uses(database: Database) -> None:
    with database.reading() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), METADATA)
    assert differences == []


def test_a_populated_database_is_upgraded_and_keeps_what_it_has(running: Ledger) -> None:
    before = rows(running)
    versions.upgrade(running.database)
    assert rows(running) == before
    assert versions.version(running.database) == versions.newest()


def test_a_migration_that_several_run_at_once_runs_once(database_url: str) -> None:
    opened = [Database(database_url) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(versions.upgrade, opened))
    with opened[0].reading() as connection:
        assert "experiments" in inspect(connection).get_table_names()
    for one in opened:
        one.close()


def test_connections_that_the_database_has_ended_are_opened_again(postgresql: PostgresqlServer) -> None:
    opened = Database(postgresql.new_database())
    versions.upgrade(opened)
    ledger = Ledger(opened, ROOT, StillClock())
    ledger.declare(design())
    postgresql.end_connections()
    assert tell(ledger, {"prediction_id": token(TREATED), "actual": 1}).accepted == 1
    opened.close()


@pytest.mark.parametrize("url", ["sqlite:///x.db", "postgresql://somebody:secret@nowhere/x"])
def test_migrations_are_had_as_sql_without_a_database(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sql = versions.upgrade_sql(url)
    assert "CREATE TABLE pending" in sql
    assert "secret" not in sql
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["nonsense", "sqlite://", "sqlite:///:memory:", "mysql://a:secret@b/c", "postgresql"])
def test_what_is_no_database_of_ours_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(StartupError) as refused:
        url_of(url)
    assert "sqlite:///FILE" in str(refused.value)
    assert "secret" not in str(refused.value)
