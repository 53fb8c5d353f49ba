"""What the page says of each verdict, and that nothing that was told can become markup."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import pytest

from fairlead.experiment import words
from fairlead.experiment.decision import Action, Decision
from fairlead.experiment.design import Better, Effect, Guardrail, Kind, Metric, Objective, Scale, Source
from fairlead.experiment.report import Check, Finding, Interval, Reason, Report, Verdict
from fairlead_ledger.page.render import experiment_html
from fairlead_ledger.page.view import Decided, Known, page_of
from support.reports import (
    BRIER,
    LATENCY,
    SLOWEST,
    START_US,
    WINS,
    Findings,
    flights_design,
    flights_report,
    looks_at,
)

WORSE = Interval(estimate=0.24, low=0.12, high=0.37)
BROKEN = Check(log_e=30.0, log_alarm=4.6, is_broken=True, p_value=1e-13)
DESIGN = flights_design()


class Tags(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def plain(html: str) -> str:
    """Return text with plain blanks and signs."""
    return unescape(html).replace(words.BLANK, " ").replace(words.MINUS, "-")


def shown(*reports: Report, **more: object) -> str:
    return experiment_html(page_of(Known(DESIGN, reports, **more)))  # type: ignore[arg-type]


def first_line(html: str) -> str:
    (found,) = re.findall(r"<h1[^>]*>(.*?)</h1>", html)
    return str(found)


SAID = {
    Reason.SUPERIOR: (Verdict.PASS, "boosted is better than logistic: brier is 6.1 % lower (2.3 % to 9.8 %)."),
    Reason.NON_INFERIOR: (Verdict.PASS, "boosted is not worse than logistic by more than the margins allow."),
    Reason.HARMFUL: (Verdict.FAIL, "boosted does harm: brier is 24 % higher (12 % to 37 %) than with logistic."),
    Reason.GUARDRAIL_BREACHED: (
        Verdict.FAIL,
        "boosted breaks a guardrail: latency_ms is 24 % higher (12 % to 37 %), where 10 % is allowed.",
    ),
    Reason.NO_WORTHWHILE_EFFECT: (
        Verdict.FAIL,
        "No change worth shipping: boosted does not improve brier by 5 %.",
    ),
    Reason.TOO_FEW_EFFECTIVE_UNITS: (Verdict.INSUFFICIENT, "Not decided yet: it takes more units to judge brier."),
    Reason.NOT_YET_MATURE: (Verdict.INSUFFICIENT, "Not decided yet: nothing is old enough to be judged."),
    Reason.HORIZON_REACHED: (
        Verdict.INSUFFICIENT,
        "Undecided: the time is up, and the evidence decides neither way.",
    ),
    Reason.SAMPLE_RATIO: (
        Verdict.INVALID,
        "Invalid: the arms did not get the units that they should have, so they cannot be compared.",
    ),
    Reason.LABEL_COVERAGE: (
        Verdict.INVALID,
        "Invalid: outcomes are missing more often in one arm, so the arms cannot be compared.",
    ),
    Reason.SOURCE_DOWN: (Verdict.NO_DATA, "No data: a source of evidence is silent, so nothing is decided."),
}
FOUND = {
    Reason.HARMFUL: {"brier": Findings(Finding.HARMFUL, WORSE)},
    Reason.GUARDRAIL_BREACHED: {"latency_ms": Findings(Finding.BREACHED, WORSE)},
    Reason.TOO_FEW_EFFECTIVE_UNITS: {"brier": Findings(Finding.GATED)},
}


@pytest.mark.parametrize("reason", Reason)
def test_the_first_line_says_the_verdict_in_plain_words_and_what_it_does_not_mean(reason: Reason) -> None:
    verdict, line = SAID[reason]
    report = flights_report(verdict, reason, metrics=FOUND.get(reason))
    html = shown(report)
    assert plain(first_line(html)) == line
    assert all(one in plain(html) for one in words.not_meant(report))
    assert words.not_meant(report)[0].startswith("Not that")


def test_what_was_done_stands_beside_the_verdict() -> None:
    report = flights_report()
    assert "goes on, and logistic keeps its place" in shown(flights_report(Verdict.PASS, Reason.NON_INFERIOR, phase=0))
    assert "No decision has been recorded yet." in shown(report)
    assert "Nothing was decided: the experiment has ended" in shown(report, ended=True)
    decision = Decision(action=Action.PROMOTE, reason="Superior", winner="boosted", phase=1, at_us=START_US)
    done = Decided(START_US, words.decided(decision, DESIGN), "sha256:" + "c" * 64)
    assert "1 Nov 2013, 06:00 UTC: boosted was promoted and takes over from logistic." in shown(report, decided=done)


def test_who_asked_for_a_decision_is_said_where_no_report_did() -> None:
    asked = Decision(action=Action.ROLLBACK, reason="GapsExceeded", phase=1, at_us=START_US)
    assert words.decided(asked, DESIGN) == "rolled back: logistic has everything again. (Gaps exceeded)"


def test_each_step_is_by_itself_the_last_one_first() -> None:
    html = shown(flights_report(Verdict.PASS, Reason.NON_INFERIOR, phase=0), flights_report())
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", plain(html))
    assert titles[:2] == ["Step 2 of 2: 50 % boosted", "Step 1 of 2: 10 % boosted"]
    assert "the objective is judged in the last one alone" in html
    assert "never pooled" in html


def test_interval_limit_direction_units_and_labels_are_all_there() -> None:
    html = shown(flights_report(), looks={(1, "brier", "boosted"): looks_at(WINS)})
    for said in (
        "Average brier over a unit's first 50 requests in this step",
        "-6.1 % (-9.8 % to -2.3 %)",
        "-0.00861 (-0.0138 to -0.00325)",
        "Smallest change worth shipping",
        "lower is better",
        "Green, from -5 % on, is worth shipping.",
        "Red, beyond +10 %, is more than the margin allows.",
        "Effective units",
        "from 25 of them and 100 units in each arm on: the gate is open.",
        "Outcomes mature, and used",
        "Outcomes pending",
        "Outcomes never arriving",
        "Answered with an error, or not at all",
        "… the model failed",
        "… no server answered",
        "Requests per unit",
        "Left out: over cap",
        "Planned share",
        "As planned.",
        "overstates the effect",
        "2,711 of 2,960 planned",
        "Variance left by the covariate",
    ):
        assert said in plain(html), said


def test_a_broken_ratio_is_said_with_its_cause_to_look_for() -> None:
    html = shown(flights_report(Verdict.INVALID, Reason.SAMPLE_RATIO, sample_ratio=BROKEN))
    assert "Not as planned." in html
    assert "units are lost, or counted twice, in one arm" in html


def test_an_experiment_that_nobody_has_reached_says_so() -> None:
    html = shown()
    assert first_line(html) == "Not begun: nobody has been exposed to any arm yet."
    assert "Step 1 of 2: 10 % boosted; Step 2 of 2: 50 % boosted" in plain(html)


def test_below_the_gate_there_is_no_interval_and_no_picture() -> None:
    gated = dict.fromkeys(("brier", "latency_ms", "error"), Findings(Finding.GATED))
    html = shown(flights_report(Verdict.INSUFFICIENT, Reason.TOO_FEW_EFFECTIVE_UNITS, metrics=gated))
    assert "closed for brier of boosted" in html
    assert "Relative change" not in html
    assert len(Tags(html).named("svg")) == 1  # the sign of the verdict


def test_units_that_were_erased_are_counted() -> None:
    assert "3 units were erased" in shown(flights_report(), erased=3)
    assert "1 unit was erased" in shown(flights_report(), erased=1)


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


def test_nothing_that_was_told_becomes_markup() -> None:
    arms = tuple(one.model_copy(update={"left_out": {HOSTILE[:60]: 3}}) for one in flights_report().arms)
    told = {"brier": Findings(Finding.SUPERIOR, WINS, HOSTILE, {"covariate": HOSTILE, "variance_ratio": 0.8})}
    report = flights_report(metrics=told, arms=arms, message=HOSTILE, estimand=HOSTILE)
    html = experiment_html(
        page_of(Known(flights_design(covariate=HOSTILE), [report], decided=Decided(START_US, HOSTILE, HOSTILE)))
    )
    tags = Tags(html)
    assert not tags.named("script")
    assert not tags.named("img")
    assert not [name for _, attributes in tags.tags for name in attributes if name.startswith("on")]


def test_the_page_is_whole_without_scripts_and_says_what_its_parts_are() -> None:
    tags = Tags(shown(flights_report(), looks={(1, "brier", "boosted"): looks_at(WINS)}))
    assert not tags.named("script")
    assert not [attributes for _, attributes in tags.tags if "style" in attributes]  # the policy would refuse it
    links = tags.named("link") + tags.named("a")
    assert all(str(one["href"]).startswith(("/", "#", "data:,")) for one in links)
    assert all("scope" in one for one in tags.named("th"))
    assert len(tags.named("caption")) == len(tags.named("table"))
    pictures = [one for one in tags.named("svg") if one.get("role") == "img"]
    assert len(pictures) == len(tags.named("desc")) == 4
    ids = [attributes["id"] for _, attributes in tags.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(part in ids for one in pictures for part in str(one["aria-labelledby"]).split())
    assert [len(tags.named(one)) for one in ("header", "main", "footer", "nav", "h1")] == [1, 1, 1, 1, 1]


def test_several_treatments_and_a_quantile_stand_side_by_side() -> None:
    design = flights_design(
        treatments=("boosted", "deep"),
        phases=(DESIGN.phases[0].model_copy(update={"weights_bp": {"boosted": 3000, "deep": 3000}}),),
        guardrails=(Guardrail(metric=SLOWEST, margin=Effect(size=0.2, scale=Scale.RELATIVE)),),
    )
    told = {"wait_s": Findings(Finding.OPEN, Interval(estimate=0.1, low=-0.1, high=0.3))}
    report = flights_report(design=design, phase=0, metrics=told)
    html = plain(experiment_html(page_of(Known(design, [report]))))
    assert html.count('<th scope="col">deep</th>') == 4
    assert "99th percentile of wait_s" in html
    assert "boosted and deep against logistic (control)" in html


@pytest.mark.parametrize(
    ("value", "kind", "scale", "said"),
    [
        (-0.061, Kind.MEAN, Scale.RELATIVE, "-6.1 %"),
        (0.1, Kind.MEAN, Scale.RELATIVE, "+10 %"),
        (0.0012, Kind.PROPORTION, Scale.ABSOLUTE, "+0.12 pp"),
        (-12345.6, Kind.MEAN, Scale.ABSOLUTE, "-12,346"),
        (0.0, Kind.MEAN, Scale.RELATIVE, "0 %"),
        (1e-9, Kind.MEAN, Scale.ABSOLUTE, "+1e-9"),
    ],
)
def test_effects_are_written_in_their_scale(value: float, kind: Kind, scale: Scale, said: str) -> None:
    assert plain(words.change(value, scale, kind)) == said


@pytest.mark.parametrize(
    ("effect", "kind", "said"),
    [
        (Effect(size=0.05, scale=Scale.RELATIVE), Kind.MEAN, "5 %"),
        (Effect(size=0.001, scale=Scale.ABSOLUTE), Kind.PROPORTION, "0.1 pp"),
        (Effect(size=0.02, scale=Scale.ABSOLUTE), Kind.MEAN, "0.02"),
    ],
)
def test_sizes_are_written_as_users_write_them(effect: Effect, kind: Kind, said: str) -> None:
    assert plain(words.size(effect, kind)) == said


def test_where_higher_is_better_everything_turns_round() -> None:
    clicks = Metric(name="clicks", kind=Kind.MEAN, better=Better.HIGHER, source=Source.OUTCOME)
    design = flights_design(
        objective=Objective(metric=clicks, minimum_effect=Effect(size=0.05, scale=Scale.RELATIVE)),
        guardrails=(Guardrail(metric=BRIER, margin=Effect(size=0.1, scale=Scale.RELATIVE)),),
    )
    gain = Interval(estimate=0.08, low=0.02, high=0.15)
    report = flights_report(design=design, metrics={"clicks": Findings(Finding.SUPERIOR, gain)})
    html = plain(experiment_html(page_of(Known(design, [report]))))
    assert first_line(html) == "boosted is better than logistic: clicks is 8 % higher (2 % to 15 %)."
    assert "Green, from +5 % on, is worth shipping." in html
    assert "better →" in html


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_words_stand_out_from_their_ground_by_day_and_by_night() -> None:
    css = shown(flights_report()).split("<style>")[1]
    themes = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    assert len(themes) == 3  # light, dark, print
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", theme))
        for ground in {"page", "card"} & set(colours):
            for ink in ("ink", "soft", "link", "good", "bad", "wait", "void", "effect"):
                if ink in colours:
                    lighter, darker = sorted((_luminance(colours[ink]), _luminance(colours[ground])), reverse=True)
                    assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (ink, ground, theme)


def test_latency_has_an_estimand_of_its_own() -> None:
    assert "a unit weighing 50 of them at most" in words.estimand(LATENCY, DESIGN)
