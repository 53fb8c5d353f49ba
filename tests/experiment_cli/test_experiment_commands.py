"""`fairlead experiment` beside a running ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairlead.cli.experiment_view import interval_bar
from fairlead.experiment import record as records
from fairlead.experiment.analysis import analyse
from fairlead.experiment.report import Finding, Interval, MetricReport, Report, Role
from support.commands import Ran, here
from support.experiment_manifests import manifest
from support.experiment_story import Story, story_design
from support.ledgers import LedgerProcess, ledger_process
from support.reports import SALT, WINS, Findings, flights_design, flights_report

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerProcess]:
    with ledger_process(tmp_path_factory.mktemp("ledger")) as running:
        yield running


@pytest.fixture(scope="module")
def story(ledger: LedgerProcess) -> Story:
    """A treatment that is better, and was promoted."""
    told = Story(ledger)
    told.declare()
    told.days(1, phase=0, units=50)
    told.days(6, phase=1, units=80)
    assert told.decide("Promote", "Superior", winner="boosted").status_code == 201
    return told


@pytest.fixture
def record(story: Story, tmp_path: Path) -> Path:
    file = tmp_path / "record.json"
    file.write_bytes(story.get(f"{story.path}/record").content)
    return file


def experiment(story: Story, *words: str) -> Ran:
    return here("experiment", *words, "--ledger", story.ledger.url)


def test_show_says_in_a_terminal_what_the_page_says(story: Story) -> None:
    shown = experiment(story, "show", "flights/arrival-delay")
    assert shown.code == 0
    for said in (
        "✓ Pass · superior   flights/arrival-delay/e1",
        "boosted is better than logistic: brier is ",
        "8 Jun 2013, 12:00 UTC: boosted was promoted and takes over from logistic.",
        "Not that the gain is exactly the estimate",
        "Step 2 of 2: 50\N{NO-BREAK SPACE}% boosted",
        "Step 1 of 2: 10\N{NO-BREAK SPACE}% boosted",
        "Average brier over each unit's first 50 requests",
        "━●━",
        "outcomes never arriving",
        f"Page: {story.page}",
    ):
        assert said in shown.out, said
    assert shown.out.index("Step 2") < shown.out.index("Step 1 of 2: 10")


def test_json_has_design_reports_and_record(story: Story) -> None:
    told = json.loads(experiment(story, "show", SALT, "--json").out)
    assert told["experiment"]["salt"] == SALT
    assert [one["phase"] for one in told["reports"]] == [0, 1]
    assert told["record"]["decision"]["winner"] == "boosted"
    assert told["page"] == story.page


def test_list_names_every_experiment(story: Story) -> None:
    listed = experiment(story, "list")
    said = (SALT, "Ended, promoted", "Pass · superior", "boosted", "brier")
    assert [word for word in said if word not in listed.out] == []
    told = json.loads(experiment(story, "list", "--json").out)
    assert [(one["salt"], one["last"]["verdict"], one["last"]["action"]) for one in told] == [(SALT, "Pass", "Promote")]


def test_a_record_agrees_with_the_ledger_from_a_file_and_from_its_address(story: Story, record: Path) -> None:
    for where in (str(record), f"{story.ledger.url}{story.path}/record"):
        checked = experiment(story, "verify", where)
        assert checked.code == 0, checked.err
        assert "the record is as it was written" in checked.out
        assert "gives Pass, Superior, as recorded" in checked.out
        assert "agrees: the same evidence gives the same report" in checked.out


def test_a_record_of_a_look_before_the_end_agrees_with_the_ledger_s_evidence_of_the_end(
    story: Story, tmp_path: Path
) -> None:
    late = Story(story.ledger, story_design(salt="flights/arrival-delay/late"), server="late", now_us=story.now_us)
    late.declare()
    late.days(6, phase=1, units=80)
    seen = Report.model_validate_json(late.analysis(1).content)
    late.tell(phase=1, units=30)
    assert late.decide("Promote", "Superior", winner="boosted").status_code == 201
    story.ledger.set_us(story.now_us)
    file = tmp_path / "record.json"
    file.write_bytes(late.get(f"{late.path}/record").content)
    assert records.read(file.read_bytes()).report == seen
    checked = experiment(story, "verify", str(file))
    assert (checked.code, "its evidence is that of the end, 90 requests after" in checked.out) == (0, True), checked
    assert "✓ Pass · superior" in experiment(story, "show", "flights/arrival-delay/late").out


def test_without_a_ledger_a_record_is_checked_by_itself(record: Path, tmp_path: Path) -> None:
    checked = here("experiment", "verify", str(record), "--state", str(tmp_path / "none"))
    assert checked.code == 0
    assert "ledger    not asked: give --ledger" in checked.out


def test_a_changed_digit_is_found(story: Story, record: Path) -> None:
    text = record.read_text()
    at = text.index('"x":') + 4
    record.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :])
    checked = experiment(story, "verify", str(record))
    assert checked.code == 1
    assert "says sha256:" in checked.reason


def test_a_record_with_a_new_hash_is_found_by_its_verdict_or_by_the_ledger(story: Story, record: Path) -> None:
    whole = records.read(record.read_bytes())
    claimed = records.make(
        whole.design, whole.evidence, whole.report.model_copy(update={"winner": None}), whole.decision
    )
    record.write_text(claimed.json_text)
    assert "gives another report: winner" in experiment(story, "verify", str(record)).reason
    phases = whole.evidence.phases
    fewer = whole.evidence.model_copy(update={"phases": (phases[0].model_copy(update={"arms": {}}), phases[1])})
    moved = analyse(whole.design, fewer, phase=1, now_us=whole.report.at_us)
    record.write_text(records.make(whole.design, fewer, moved, whole.decision).json_text)
    checked = experiment(story, "verify", str(record))
    assert checked.code == 1
    assert "ledger    differs: evidence.phases[0].arms" in checked.out


def test_another_design_under_the_same_name_is_found(story: Story, record: Path) -> None:
    whole = records.read(record.read_bytes())
    design = whole.design.model_copy(update={"alpha": 0.1})
    report = analyse(design, whole.evidence, phase=1, now_us=whole.report.at_us)
    record.write_text(records.make(design, whole.evidence, report, whole.decision).json_text)
    checked = experiment(story, "verify", str(record))
    assert (checked.code, "another design" in checked.out) == (1, True)


def test_a_hold_goes_on_and_its_record_stands_alone(story: Story, tmp_path: Path) -> None:
    held = Story(story.ledger, flights_design(salt="flights/arrival-delay/held", covariate=None), now_us=story.now_us)
    held.declare()
    assert held.decide("Hold", "SourceDown", phase=0).status_code == 201
    (tmp_path / "held.json").write_bytes(held.get(f"{held.path}/record").content)
    checked = experiment(story, "verify", str(tmp_path / "held.json"))
    assert (checked.code, "goes on since" in checked.out) == (0, True)
    shown = experiment(story, "show", "flights/arrival-delay/held")
    assert "held: shares stay as they are until somebody decides." in shown.out


@pytest.mark.parametrize("days", [0, 1], ids=["before any traffic", "after servers fell silent"])
def test_a_rollback_on_nothing_agrees_too(story: Story, tmp_path: Path, days: int) -> None:
    design = flights_design(salt=f"flights/arrival-delay/nothing-{days}", covariate=None)
    rolled = Story(story.ledger, design, server=f"server-{days + 2}", now_us=story.now_us)
    rolled.declare()
    rolled.days(days, phase=0, units=20)
    rolled.wait_us(30 * 86_400_000_000)
    assert rolled.decide("Rollback", "Requested", phase=days).status_code == 201
    story.ledger.set_us(story.now_us)
    file = tmp_path / "record.json"
    file.write_bytes(rolled.get(f"{rolled.path}/record").content)
    assert records.read(file.read_bytes()).evidence.down == (("exposures",) if days else ())
    checked = experiment(story, "verify", str(file))
    assert (checked.code, "agrees" in checked.out) == (0, True), checked


def test_units_that_were_erased_since_are_counted_and_the_record_stands_alone(story: Story, record: Path) -> None:
    with story.ledger.client() as client:
        for unit in ("N3", "N80", "N81"):
            assert client.delete(f"/v1/units/{unit}", params={"experiment": SALT}).json() == {"erased": True}
    checked = experiment(story, "verify", str(record))
    assert checked.code == 3
    assert "3 units were erased since" in checked.out
    assert "the record is as it was written" in checked.out


def test_a_plan_may_take_from_an_earlier_experiment_how_much_units_scatter(story: Story, tmp_path: Path) -> None:
    words = ("plan", "--units-per-day", "400", "--like", SALT, "--json", "-f")
    planned = json.loads(experiment(story, *words, str(manifest(tmp_path))).out)
    assert 500 < planned["units"] < 50_000
    nothing = {"metric": "squared_error", "minimumEffect": "5%"}
    refused = experiment(story, *words, str(manifest(tmp_path, objective=nothing)))
    assert (refused.code, "nothing of squared_error was judged in it" in refused.reason) == (1, True)


def test_what_is_wrong_is_one_line_that_says_what_to_do(story: Story, tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{}")
    state = ("--state", str(tmp_path / "none"))
    for words, code, said in (
        (("show", "flights", "--ledger", story.ledger.url), 2, "flights: is no experiment; give NAMESPACE/NAME or"),
        (("show", "a/b", "--ledger", story.ledger.url), 1, "a/b: the ledger http"),
        (("show", "a/b/c", "--ledger", story.ledger.url), 1, "HTTP 404: no experiment a/b/c is declared"),
        (("show", "a/b/c", "--ledger", "ledger:80"), 2, "--ledger ledger:80: is no address; give http://HOST:PORT"),
        (("show", "a/b/c", "--ledger", NOBODY), 1, "is the ledger running there? (--ledger)"),
        (("show", "a/b/c", *state), 2, "--ledger: no ledger is known; give its address, or run `fairlead up` here"),
        (("list", "--ledger", NOBODY, "--api-key", "none.key"), 2, "--api-key none.key: No such file or directory"),
        (("verify", str(tmp_path / "none.json"), *state), 2, "none.json: no such file or directory; give a decision"),
        (("verify", str(tmp_path / "no.json"), *state), 2, "no.json: is no decision record: design: Field required"),
        (("verify", f"{NOBODY}/x", *state), 2, "is no record; its address ends in /v1/experiments/NAMESPACE/NAME/ID"),
        (("verify", f"{story.ledger.url}/v1/experiments/a/b/c/record"), 2, "nothing was decided of a/b/c yet"),
    ):
        failed = here("experiment", *words)
        assert (failed.code, said in failed.reason) == (code, True), (words, failed)


def test_the_ledger_of_fairlead_up_is_found_by_its_state_folder(story: Story, tmp_path: Path) -> None:
    (tmp_path / "arrival-delay").mkdir()
    (tmp_path / "arrival-delay" / "state.json").write_text(json.dumps({"ledger_port": story.ledger.port}))
    assert SALT in here("experiment", "list", "--state", str(tmp_path)).out


def test_an_api_key_is_taken_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [{"id": "alice", "hash": hashlib.sha256(b"secret").hexdigest(), "roles": ["reader"]}]
    (tmp_path / "api-keys.json").write_text(json.dumps(keys))
    (tmp_path / "key").write_text("alice.secret\n")
    with ledger_process(tmp_path, arguments=("--api-keys", str(tmp_path / "api-keys.json"))) as ledger:
        refused = here("experiment", "list", "--ledger", ledger.url)
        assert (refused.code, "--api-key FILE" in refused.reason) == (1, True)
        assert here("experiment", "list", "--ledger", ledger.url, "--api-key", str(tmp_path / "key")).code == 0
        monkeypatch.setenv("FAIRLEAD_LEDGER_API_KEY", "alice.secret")
        assert "no experiment yet" in here("experiment", "list", "--ledger", ledger.url).out


def bar(interval: Interval, metric: str = "brier", role: Role = Role.OBJECTIVE) -> str:
    report = flights_report(metrics={metric: Findings(Finding.OPEN, interval)})
    (told,) = (one for one in report.metrics if (one.metric, one.role) == (metric, role))
    return interval_bar(told)


def test_an_interval_is_a_bar_with_no_change_in_its_middle() -> None:
    drawn = bar(WINS)
    assert len(drawn) == 43
    assert drawn[21] == "│"
    assert drawn.index("━") < drawn.index("●") < drawn.index("┆") < 21
    assert drawn.strip("┈━●┆│ ") == ""


def test_what_is_unbounded_or_far_out_ends_in_an_arrow() -> None:
    guardrail = bar(Interval(estimate=0.01, low=None, high=0.06), "latency_ms", Role.GUARDRAIL)
    assert guardrail[0] == "◀"
    assert guardrail.index("┆") > guardrail.index("●")
    assert bar(Interval(estimate=3.0, low=-0.1, high=9.0))[-1] == "▶"


def test_without_an_interval_there_is_no_bar() -> None:
    (told, *_) = flights_report(metrics={"brier": Findings(Finding.GATED)}).metrics
    assert isinstance(told, MetricReport)
    assert interval_bar(told) == ""
