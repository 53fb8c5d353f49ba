"""An experiment told to a running ledger: its analyses, its record, and its page in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fairlead.experiment import record as records
from fairlead.experiment.report import Report
from fairlead.feedback.gateway import HEARTBEAT, gateway_name
from fairlead.feedback.messages import ExposureReport
from support.browser import Tab, chromium, pages_of
from support.experiment_story import DAY_US, Story
from support.ledgers import MINUTE_US, LedgerProcess, ledger_process
from support.reports import flights_design

PHONE, DESK = (360, 740), (1280, 800)
TEMPLATES = Path(__file__).resolve().parents[2] / "ledger/src/fairlead_ledger/page/templates"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A treatment that is better, shown at 10 % and then at 50 %."""
    with ledger_process(tmp_path_factory.mktemp("story")) as ledger:
        told = Story(ledger)
        told.declare()
        told.days(2, phase=0, units=100)
        told.days(8, phase=1, units=80)
        yield told


@pytest.fixture(scope="module")
def decided(story: Story) -> Story:
    """The same, after its promotion."""
    assert story.decide("Promote", "Superior", winner="boosted").status_code in (200, 201)
    return story


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def test_a_phase_is_judged_by_itself_and_the_last_one_unless_another_is_asked_for(story: Story) -> None:
    last, first = (Report.model_validate_json(story.analysis(phase).content) for phase in (None, 0))
    assert (last.phase, last.is_final, last.reason) == (1, True, "Superior")
    assert (first.phase, first.is_final, first.verdict) == (0, False, "Insufficient")
    assert last.at_us == story.now_us
    assert last.winner == "boosted"
    refused = story.analysis(7)
    assert (refused.status_code, refused.json()["error"]) == (400, "phase 7 is not planned; 2 are, from 0")


def test_looks_are_kept_once_a_minute_for_the_figure_over_time(story: Story) -> None:
    for _ in range(3):
        story.analysis(1)
    html = story.get(story.page).text
    course = html.split("change against control, over time</title>")[1].split('<polyline class="path" points="')[1]
    assert 5 <= len(course.split('"')[0].split()) <= 9


def test_a_decision_is_told_once_and_ends_the_experiment(decided: Story) -> None:
    again = decided.decide("Promote", "Superior", winner="boosted")
    other = decided.decide("Rollback", "Harmful")
    assert again.status_code == 200
    assert (other.status_code, other.json()["error"]) == (
        409,
        "flights/arrival-delay/e1: Promote was decided before (Superior)",
    )
    record = records.read(decided.get(f"{decided.path}/record").content)
    records.check(record)
    assert again.content == decided.get(f"{decided.path}/record").content
    assert record.report == Report.model_validate_json(decided.analysis(1).content).model_copy(
        update={"arms": record.report.arms}
    )
    state = decided.get(decided.path).json()
    assert (state["state"], state["ended_us"]) == ("Ended", record.report.at_us)


def test_the_evidence_of_a_decided_experiment_stays_that_of_its_record(decided: Story) -> None:
    before = decided.get(f"{decided.path}/evidence").json()
    decided.wait_us(3 * DAY_US)
    assert decided.get(f"{decided.path}/evidence").json() == before
    decided.wait_us(-3 * DAY_US)


def test_a_hold_decides_nothing_and_another_decision_may_follow(story: Story) -> None:
    design = flights_design(salt="flights/arrival-delay/held")
    held = Story(story.ledger, design, now_us=story.now_us)
    held.declare()
    assert held.get(f"{held.path}/record").status_code == 404
    assert held.decide("Hold", "SourceDown", phase=0).status_code == 201
    assert held.get(held.path).json()["state"] == "Running"
    assert held.decide("Rollback", "Requested", phase=0).status_code == 201
    record = records.read(held.get(f"{held.path}/record").content)
    assert (record.decision.action, record.report.verdict, record.report.reason) == (
        "Rollback",
        "NoData",
        "NotYetMature",
    )
    assert held.get(held.path).json()["state"] == "Ended"
    assert "rolled back: logistic has everything again. (Requested)" in held.get(held.page).text


def test_silent_servers_decide_nothing_until_they_tell_again(story: Story) -> None:
    design = flights_design(salt="flights/arrival-delay/silent", covariate=None)
    told = Story(story.ledger, design, server="server-2", now_us=story.now_us)
    told.declare()
    told.days(2, phase=0, units=20)
    assert told.analysis(0).json()["reason"] == "TooFewEffectiveUnits"
    told.wait_us(8 * DAY_US)
    silent = told.analysis(0).json()
    assert (silent["verdict"], silent["reason"]) == ("NoData", "SourceDown")
    assert "a source of evidence is silent" in told.get(told.page).text
    told.days(1, phase=0, units=20)
    assert told.analysis(0).json()["reason"] == "TooFewEffectiveUnits"
    assert told.get(f"{told.path}/evidence").json()["down"] == []
    story.ledger.set_us(story.now_us)


def test_a_gateway_of_which_nobody_tells_any_more_is_a_silent_source(story: Story) -> None:
    design = flights_design(salt="flights/arrival-delay/gateway", covariate=None)
    told = Story(story.ledger, design, server="server-3", now_us=story.now_us)
    told.declare()
    told.days(2, phase=0, units=20)
    assert not _is_gateway_down(told), "nobody has to tell of a gateway"
    _beat(told)
    assert not _is_gateway_down(told)
    told.wait_us(16 * MINUTE_US)
    assert _is_gateway_down(told)
    assert told.analysis(0).json()["reason"] == "SourceDown"
    _beat(told)
    assert not _is_gateway_down(told)
    story.ledger.set_us(story.now_us)


def _beat(told: Story) -> None:
    """Tell that a gateway's log is read, and nothing else."""
    report = ExposureReport(server=gateway_name(told.design.salt, "one"), sequence=HEARTBEAT)
    with told.ledger.client() as client:
        answer = client.post("/v1/exposures", content=report.model_dump_json())
    assert answer.is_success, answer.text


def _is_gateway_down(told: Story) -> bool:
    return "gateway" in told.get(f"{told.path}/evidence").json()["down"]


def test_what_is_not_declared_is_not_found(story: Story) -> None:
    for path in ("analysis", "evidence", "record"):
        assert story.get(f"/v1/experiments/flights/none/e1/{path}").status_code == 404
    page = story.get("/experiments/flights/none/e1")
    assert (page.status_code, "no experiment flights/none/e1" in page.text) == (404, True)
    assert story.get("/experiments/<script>/x/y").status_code == 422


def test_pages_may_load_run_and_frame_nothing(story: Story) -> None:
    style = base64.b64encode(hashlib.sha256((TEMPLATES / "page.css").read_bytes()).digest()).decode()
    for path in ("/experiments", story.page, "/experiments/flights/none/e1"):
        headers = story.get(path).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert policy == {
            "default-src": "'none'",
            "style-src": f"'sha256-{style}'",
            "img-src": "data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("dark", [False, True], ids=["by day", "by night"])
@pytest.mark.parametrize("screen", [PHONE, DESK], ids=["phone", "desk"])
def test_the_page_fits_the_screen_and_complains_of_nothing(
    decided: Story, tab: Tab, screen: tuple[int, int], *, dark: bool
) -> None:
    width, height = screen
    tab.complaints.clear()
    tab.requested.clear()
    tab.screen(width, height, dark=dark)
    tab.open(decided.page)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    verdict, done, ground = tab.evaluate(
        "[...['#verdict', '.done'].map(one => document.querySelector(one).getBoundingClientRect().bottom),"
        " getComputedStyle(document.body).backgroundColor]"
    )
    assert 0 < verdict < done < height  # seen without scrolling
    assert ground == ("rgb(17, 21, 27)" if dark else "rgb(255, 255, 255)")
    assert tab.complaints == []
    assert tab.requested == [decided.page]
    _keep(f"page-{width}{'-dark' if dark else ''}.png", tab.screenshot())


def test_pictures_are_as_wide_as_their_column_and_their_words_can_be_read_on_a_phone(decided: Story, tab: Tab) -> None:
    tab.screen(*PHONE)
    tab.open(decided.page)
    sizes = tab.evaluate(
        "[...document.querySelectorAll('figure svg text')].map(one => one.getBoundingClientRect().height)"
    )
    outside = tab.evaluate(
        "[...document.querySelectorAll('figure svg')].flatMap(svg => [...svg.querySelectorAll('text')].filter(one =>"
        " one.getBoundingClientRect().left < svg.getBoundingClientRect().left - 1 ||"
        " one.getBoundingClientRect().right > svg.getBoundingClientRect().right + 1).map(one => one.textContent))"
    )
    assert len(sizes) > 20
    assert min(sizes) >= 10
    assert outside == []


def test_printed_it_is_a_few_pages_without_navigation(decided: Story, tab: Tab) -> None:
    tab.screen(*DESK)
    tab.open(decided.page)
    pdf = tab.pdf()
    assert 2 <= pages_of(pdf) <= 5
    _keep("page.pdf", pdf)


def test_the_list_leads_to_every_experiment(decided: Story, tab: Tab) -> None:
    tab.complaints.clear()
    tab.screen(*PHONE)
    tab.open(f"{decided.ledger.url}/experiments/")
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE[0]
    links = tab.evaluate("[...document.querySelectorAll('main a')].map(one => one.href)")
    assert decided.page in links
    assert "Pass · superior" in tab.evaluate("document.querySelector('.cards').innerText")
    assert tab.complaints == []


def test_a_browser_is_asked_for_an_api_key_and_may_give_it_as_a_password(tmp_path: Path) -> None:
    keys = [
        {"id": "alice", "hash": hashlib.sha256(b"secret").hexdigest(), "roles": ["reader"], "deployments": ["a/b"]},
        {"id": "op", "hash": hashlib.sha256(b"op").hexdigest(), "roles": ["operator"]},
    ]
    (tmp_path / "api-keys.json").write_text(json.dumps(keys))
    with ledger_process(tmp_path, arguments=("--api-keys", str(tmp_path / "api-keys.json"))) as ledger:
        _asks_for_keys(ledger)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")
def test_a_browser_leaves_no_process_behind(tmp_path: Path) -> None:
    with chromium(tmp_path) as tab:
        tab.open("about:blank")
        assert _processes_of(tmp_path)
    for _ in range(600):  # whom nobody waits for is gone a moment after it was killed
        if not _processes_of(tmp_path):
            return
        threading.Event().wait(0.1)
    pytest.fail("processes are left")


def _processes_of(folder: Path) -> list[str]:
    """Return the processes that name a folder, but for those that are dead and not yet taken away."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(folder).encode() in process.read_bytes():
                found.append(process.parent.name)
    return found


def _asks_for_keys(ledger: LedgerProcess) -> None:
    with ledger.client() as client:
        operator = {"authorization": "Bearer op.op"}
        for salt in ("a/b/e1", "c/d/e1"):
            design = flights_design(salt=salt).model_dump_json()
            assert client.put(f"/v1/experiments/{salt}", content=design, headers=operator).status_code == 201
        asked = client.get("/experiments")
        assert asked.status_code == 401
        assert asked.headers["www-authenticate"].startswith("Basic ")
        assert client.get("/experiments", auth=("alice", "wrong")).status_code == 401
        seen = client.get("/experiments", auth=("alice", "secret"))
        assert seen.status_code == 200
        assert "a/b/e1" in seen.text
        assert "c/d/e1" not in seen.text
        assert client.get("/experiments/a/b/e1", auth=("alice", "secret")).status_code == 200
        assert client.get("/experiments/c/d/e1", auth=("alice", "secret")).status_code == 404
        decision = {"action": "Rollback", "reason": "Requested", "phase": 0, "at_us": 1}
        reader = {"authorization": "Bearer alice.secret"}
        assert client.post("/v1/experiments/a/b/e1/decision", json=decision, headers=reader).status_code == 403


def _keep(name: str, content: bytes) -> None:
    """Keep a picture where whoever works on the page wants to look at it."""
    if folder := os.environ.get("FAIRLEAD_PICTURES"):
        (Path(folder) / name).write_bytes(content)
