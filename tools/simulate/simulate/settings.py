"""Every setting that is simulated, and what must hold in it.

Populations are those on which the method was chosen; what is claimed is what the product promises.
"""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.experiment.trials import Limit
from simulate.agreement import Agreement
from simulate.brownian import Duration, FrozenClock, LongWay
from simulate.checks import FewUnits, SampleRatio
from simulate.guards import Adjusted, Guarded, SeveralArms, Tails
from simulate.paths import Comparison
from simulate.population import Arrival, Population, Value
from simulate.setting import Claim, Setting, Study
from simulate.troubles import InterruptedComparison, LateLabels, RampedComparison, StalledComparison
from simulate.verdicts import Rollout
from simulate.worlds import Delays, Outages, Ramp, Stalls

ALPHA = 0.05
ALPHA_RATIO = 0.01
EVEN, TENTH = (0.5, 0.5), (0.9, 0.1)
ICCS = (0.0, 0.05, 0.3, 0.8)
RIGHT = Claim("missed", most=ALPHA)
"""The interval leaves the truth out at any look in so many runs at most."""
NULL = (RIGHT, Claim("missed_relative", most=ALPHA), Claim("missed_early", most=ALPHA))
LOUD = (Claim("tested_end", least=0.9), Claim("width", most=1.75))
"""It is right, and not by silence."""


def _nothing_there() -> Iterator[Setting]:
    for arrival, tag in ((Arrival.UNIFORM, "arriving"), (Arrival.PRESENT, "present")):
        for zipf in (0.6, 1.1):
            for icc in ICCS:
                yield from _returning(tag, Population(arrival=arrival, zipf=zipf, icc=icc))
    for icc in ICCS[1:]:
        yield from _returning("heavy-late", Population(arrival=Arrival.HEAVY_LATE, zipf=0.6, icc=icc))
    for redraws in (5.0, 50.0):
        for arrival, tag in ((Arrival.UNIFORM, "arriving"), (Arrival.PRESENT, "present")):
            for icc in (0.3, 0.8):
                population = Population(arrival=arrival, zipf=0.6, icc=icc, redraws=redraws)
                yield from _returning(f"{tag}-drift{redraws:g}", population)
    for zipf, icc in ((0.2, 0.3), (0.6, 0.05), (0.6, 0.8), (1.1, 0.05), (1.1, 0.3), (1.1, 0.8)):
        yield from _returning("tenth", Population(zipf=zipf, icc=icc, shares=TENTH))
    for icc in (0.0, 0.3):
        study = Comparison(population=Population(zipf=0.6, icc=icc), looks=40, new_units=100)
        title = f"a look per 100 new units, Zipf 0.6, ICC {icc:g}, cap 50"
        yield Setting(name=f"null-per-units-icc{icc:g}", table="null", title=title, study=study, claims=NULL)


def _returning(tag: str, population: Population) -> Iterator[Setting]:
    is_even = min(population.shares) == max(population.shares)
    for cap in (50, None):
        what = f"cap {cap}" if cap else "no cap"
        share = "" if is_even else ", 10/90"
        yield Setting(
            name=f"null-{tag}-zipf{population.zipf:g}-icc{population.icc:g}-{what.replace(' ', '')}",
            table="null" if cap else "null_open",
            title=f"{_arriving(population)}, Zipf {population.zipf:g}, ICC {population.icc:g}{share}, {what}",
            study=Comparison(population=population, cap=cap),
            claims=(*NULL, *LOUD) if cap and is_even else NULL,
        )


def _arriving(population: Population) -> str:
    how = {
        Arrival.UNIFORM: "units arrive",
        Arrival.PRESENT: "all units there",
        Arrival.HEAVY_LATE: "heavy users late",
    }[population.arrival]
    return f"{how}, redrawn {population.redraws:g} times" if population.redraws else how


def _few_events() -> Iterator[Setting]:
    rare = Population(units=30_000, single=True, mean=0.01)
    usual = Population(units=10_000, single=True)
    heavy = Population(units=30_000, single=True, value=Value.LOGNORMAL)
    for shares, tag in ((EVEN, "50/50"), (TENTH, "10/90")):
        for population, what in ((rare, "1 % of events"), (usual, "20 % of events"), (heavy, "lognormal, spread 2")):
            one = Population(
                units=population.units, single=True, mean=population.mean, value=population.value, shares=shares
            )
            yield _few(f"{what}, one request per unit, {tag}", Comparison(population=one, cap=None, looks=120))
        for zipf in (1.1, 0.6):
            one = Population(requests=20_000, zipf=zipf, icc=0.3, shares=shares)
            yield _few(f"20 % of events, returning, Zipf {zipf:g}, ICC 0.3, {tag}", Comparison(population=one))
    lifted = Population(units=30_000, single=True, mean=0.01, lift=-0.3, shares=TENTH)
    yield _few("1 % of events, 30 % fewer in the treatment, 10/90", Comparison(population=lifted, cap=None, looks=120))


def _few(title: str, study: Comparison) -> Setting:
    return Setting(name=f"few-{_slug(title)}", table="few", title=title, study=study, claims=NULL)


def _effects() -> Iterator[Setting]:
    """Yield what was measured before the product was: it must find as much, as soon, give or take 3 points."""
    single = (
        (Population(units=20_000, single=True, lift=-0.1), 0.795, 0.62, "1 request per unit, 20 %, effect -10 %"),
        (
            Population(units=60_000, single=True, mean=0.01, lift=-0.3),
            0.88,
            0.51,
            "1 request per unit, 1 %, effect -30 %",
        ),
    )
    for population, power, stop, title in single:
        yield _found(title, Comparison(population=population, cap=None), power=power, stop=stop, is_planned=True)
    returning = ((0.05, -0.12, 0.692, 0.53), (0.3, -0.25, 0.688, 0.33), (0.8, -0.4, 0.745, 0.22))
    for icc, lift, power, stop in returning:
        population = Population(zipf=0.6, icc=icc, lift=lift)
        title = f"returning, Zipf 0.6, ICC {icc:g}, effect {lift:.0%}"
        yield _found(f"{title}, no cap", Comparison(population=population, cap=None))
        yield _found(f"{title}, cap 50", Comparison(population=population), power=power, stop=stop, is_planned=True)
    heavy = Population(zipf=1.1, icc=0.3, lift=-0.25)
    title = "returning, Zipf 1.1, ICC 0.3, effect -25 %, cap 50"
    yield _found(title, Comparison(population=heavy), power=0.827, stop=0.47, is_planned=True)


def _found(
    title: str, study: Comparison, *, power: float = 0.0, stop: float = 1.0, is_planned: bool = False
) -> Setting:
    found = Comparison(
        population=study.population, cap=study.cap, minimum_effect=abs(study.population.truth), looks=study.looks
    )
    claims = (
        RIGHT,
        Claim("missed_relative", most=ALPHA),
        Claim("found", least=power - 0.03),
        Claim("stop", most=stop + 0.03, of="median"),
        Claim("wrong_sign", most=0.01),
    )  # without a cap the gate is shut half of the time, and there is no more to claim than that it is right
    within = (Claim("planned_over_seen", least=0.8, most=1.2),) if is_planned else ()
    return Setting(name=f"effect-{_slug(title)}", table="effect", title=title, study=found, claims=(*claims, *within))


def _bounds() -> Iterator[Setting]:
    most = tuple(Claim(f"{kind}{sides}", most=ALPHA) for kind in ("", "e_") for sides in ("two_sided", "one_sided"))
    yield _of("bounds", "six decades of information, 3,000 looks", LongWay(), *most, runs=4000)
    title = "two decades, from the effect that matters on"
    yield _of("bounds", title, LongWay(low=1.0, high=100.0), *most, runs=4000)
    in_time = Claim("found_by_planned_80%", least=0.8)
    for times, claims in ((0.5, (in_time,)), (1.0, (in_time,)), (2.0, ())):
        yield _of(
            "duration", f"effect of {times:g} times the one that matters", Duration(times=times), *claims, runs=4000
        )
    for doublings, held in ((5, most[:1]), (10, most[:1]), (20, most[:1]), (40, most[:0])):
        title = f"information stands still, traffic doubles {doublings} times"
        yield _of("frozen", title, FrozenClock(doublings=doublings), *held, runs=20_000, chunk=1000)


def _ratios() -> Iterator[Setting]:
    none = Claim("found", most=ALPHA_RATIO)
    nulls = (("50/50", EVEN), ("10/90", TENTH), ("70/10/10/10", (0.7, 0.1, 0.1, 0.1)))
    for tag, shares in nulls:
        study = SampleRatio(planned=shares, true=shares, units=200_000)
        yield _of("ratio", f"nothing wrong, {tag}", study, none, runs=4000)
    wrong = (
        ("94.5/5.5 instead of 90/10", TENTH, (0.945, 0.055), 5000, 1000, 100),
        ("51/49", EVEN, (0.51, 0.49), 200_000, 60_000, 100),
        ("2 % of exposures lost in a 50 % arm", EVEN, (0.5 / 0.99, 0.49 / 0.99), 800_000, 250_000, 500),
        ("2 % lost in a 10 % arm", TENTH, (0.9 / 0.998, 0.098 / 0.998), 2_000_000, 700_000, 500),
    )
    for title, planned, true, units, by, step in wrong:
        study = SampleRatio(planned=planned, true=true, units=units, step=step)
        yield _of("ratio", title, study, Claim("units", most=by, of="q90"))


def _ramps() -> Iterator[Setting]:
    for icc in (0.02, 0.3):
        population = Population(zipf=0.4, icc=icc, mean=0.1, arrival=Arrival.PRESENT)
        for ramp, tag in (
            (Ramp(), "base 10 % to 20 % with the step"),
            (Ramp(is_sudden=False), "base 10 % to 20 %, evenly"),
            (Ramp(growth=1.0), "no drift"),
        ):
            study = RampedComparison(ramp=ramp, population=population)
            claims = (RIGHT, Claim("missed_first_step", most=ALPHA), Claim("tested_end", least=0.9))
            yield _of("ramp", f"{tag}, ICC {icc:g}", study, *claims, runs=1000)


def _outages() -> Iterator[Setting]:
    for growth in (1.0, 2.0, 3.0):
        study = InterruptedComparison(outages=Outages(growth=growth), population=Population(zipf=0.4, icc=0.1))
        title = f"1 to 3 gaps of 5 % of the time, mean times {growth:g} meanwhile"
        yield _of("outage", title, study, RIGHT, Claim("tested_end", least=0.9), runs=1000)


def _late_labels() -> Iterator[Setting]:
    late = Population(units=20_000, single=True)
    slow, alike = Delays(), Delays(means=(0.05, 0.05))
    for delays, window, tag, claims in (
        (slow, 0.5, "twice as late in the treatment, window of 5 slow delays", (RIGHT,)),
        (Delays(of_zeros=0.0), 0.5, "the same, zeros at once", (RIGHT,)),
        (slow, 0.1, "twice as late, window of 1 slow delay: too short", (Claim("coverage_broken", least=0.9),)),
        (alike, 0.3, "alike in both arms", (RIGHT, Claim("coverage_broken", most=ALPHA_RATIO))),
    ):
        yield _of("late", tag, LateLabels(delays=delays, window=window, population=late), *claims)


def _stalls() -> Iterator[Setting]:
    calm = (RIGHT, Claim("tested_end", least=0.9))
    short = (RIGHT, Claim("tested_end", least=0.8))  # sixteen half hours in each arm
    for stalls, tag, claims in (
        (Stalls(rate=0.0), "none, 4 hours", short),
        (Stalls(rate=0.0, minutes=1440), "none, a day", calm),
        (Stalls(length=1.0), "1 minute, 4 hours", (RIGHT,)),
        (Stalls(minutes=1440, length=1.0), "1 minute, a day", (RIGHT,)),
        (Stalls(minutes=1440, length=3.0), "3 minutes, a day", (RIGHT,)),
        (Stalls(minutes=1440, length=10.0, wait_ms=100.0), "10 minutes, a day", (RIGHT,)),
        (Stalls(minutes=5760, length=10.0, rate=0.01, wait_ms=100.0), "10 minutes, four days", (RIGHT,)),
    ):
        study = StalledComparison(stalls=stalls, population=Population(zipf=0.6, units=3000, requests=20_000))
        yield _of("stall", tag, study, *claims, runs=500)


def _guards() -> Iterator[Setting]:
    wrong = (Claim("alarm", most=ALPHA / 4), Claim("safe", most=ALPHA))
    for lift, tag, claims in (
        (0.1, "exactly at the margin of 10 %", wrong),
        (0.0, "no difference", (Claim("alarm", most=ALPHA / 4), Claim("safe", least=0.7))),
        (0.3, "three margins", (Claim("safe", most=ALPHA), Claim("alarm", least=0.8))),
    ):
        study = Guarded(comparison=Comparison(population=Population(zipf=0.6, icc=0.05, lift=lift)))
        yield _of("guard", tag, study, *claims)


def _exact() -> Iterator[Setting]:
    at_margin = (Claim("alarm", most=ALPHA), Claim("safe", most=ALPHA))
    for control, limit, tag in (
        (0.01, Limit(1.5, 0.0), "1 %, at the margin of +50 %"),
        (0.2, Limit(1.1, 0.0), "20 %, at the margin of +10 %"),
        (0.01, Limit(1.0, 0.01), "1 %, at the margin of +1 point"),
    ):
        for share in (0.5, 0.1):
            treatment = limit.slope * control + limit.shift
            study = FewUnits(control=control, treatment=treatment, limit=limit, share=share)
            yield _of("exact", f"{tag}, {1 - share:.0%}/{share:.0%}", study, *at_margin)
    for rate, tag in ((0.02, "0.1 % to 2 %, margin +1 point"), (0.1, "0.1 % to 10 %, margin +1 point")):
        study = FewUnits(control=0.001, treatment=rate, limit=Limit(1.0, 0.01), units=10_000)
        yield _of("exact", f"harm: {tag}", study, Claim("safe", most=ALPHA), Claim("alarm", least=0.8))


def _tails() -> Iterator[Setting]:
    tails = Population(zipf=0.4, units=8000, requests=100_000)
    covered = [Claim(f"missed_{what}", most=ALPHA) for what in ("control", "treatment", "ratio")]
    for factor, tag, claim in (
        (1.0, "no difference", Claim("alarm", most=ALPHA)),
        (1.2, "exactly at the margin of 20 %", Claim("alarm", most=ALPHA)),
        (2.0, "twice as slow", Claim("alarm", least=0.8)),
    ):
        study = Tails(population=tails, factor=factor, looks=8)
        yield _of("tail", tag, study, *covered, claim, runs=100, chunk=10)


def _more() -> Iterator[Setting]:
    covered = tuple(Claim(f"missed_{how}", most=ALPHA) for how in ("plain", "units", "requests"))
    for zipf, icc in ((0.6, 0.05), (0.6, 0.3), (0.2, 0.3), (0.2, 0.8)):
        population = Population(zipf=zipf, icc=icc, covariate=0.7)
        yield _of(
            "covariate",
            f"no effect, Zipf {zipf:g}, ICC {icc:g}",
            Adjusted(comparison=Comparison(population=population)),
            *covered,
        )
    lifted = Comparison(population=Population(zipf=0.2, icc=0.3, covariate=0.7, lift=-0.15), minimum_effect=0.03)
    yield _of("covariate", "effect -15 %, Zipf 0.2, ICC 0.3", Adjusted(comparison=lifted), *covered)
    livelier = Comparison(population=Population(zipf=0.2, icc=0.3, covariate=0.7, activity=0.5))
    title = "no effect on anyone, but 50 % more requests of half the units"
    yield _of("covariate", title, Adjusted(comparison=livelier), Claim("missed_requests", most=ALPHA), runs=1000)
    for shares in ((0.4, 0.2, 0.2, 0.2), (0.34, 0.33, 0.33), (0.25, 0.25, 0.25, 0.25)):
        study = SeveralArms(comparison=Comparison(population=Population(zipf=0.6, icc=0.05, shares=shares)))
        yield _of("arms", "/".join(f"{share:.0%}" for share in shares), study, RIGHT)


def _rollouts() -> Iterator[Setting]:
    population = Population(zipf=0.4, icc=0.02, mean=0.1, arrival=Arrival.PRESENT, units=6000, requests=60_000)
    wrong = tuple(Claim(name, most=ALPHA) for name in ("superior", "harmful", "breached"))
    sound = (Claim("sample_ratio", most=ALPHA_RATIO), Claim("label_coverage", most=ALPHA_RATIO))
    for tag, study, claims in (
        ("no difference", Rollout(ramp=Ramp(), population=population), (*wrong, *sound)),
        (
            "10 % better",
            Rollout(ramp=Ramp(), population=population, lift=-0.1),
            (*wrong[1:], *sound, Claim("superior", least=0.5)),
        ),
        (
            "better, and complaints from 1 % to 5 %",
            Rollout(ramp=Ramp(), population=population, lift=-0.1, complaints=(0.01, 0.05)),
            (wrong[0], *sound, Claim("breached", least=0.9)),
        ),
    ):
        yield _of("rollout", tag, study, *claims, runs=300, chunk=10)


def _agreements() -> Iterator[Setting]:
    populations = (
        ("returning, Zipf 0.6, ICC 0.3", Population(zipf=0.6, icc=0.3)),
        ("returning, Zipf 1.1, ICC 0.8, 10/90", Population(zipf=1.1, icc=0.8, shares=TENTH)),
        ("1 % of events, one request per unit", Population(units=10_000, single=True, mean=0.01)),
        ("lognormal, returning", Population(zipf=0.6, value=Value.LOGNORMAL)),
    )
    same = tuple(Claim(name, most=1e-6, of="largest") for name in ("gbstats", "tea_tasting", "statsmodels"))
    for title, population in populations:
        yield _of("agreement", title, Agreement(population=population), *same, runs=10, chunk=10)


def _of(table: str, title: str, study: Study, *claims: Claim, runs: int = 2000, chunk: int = 50) -> Setting:
    name = f"{table}-{_slug(title)}"
    return Setting(name=name, table=table, title=title, study=study, claims=claims, runs=runs, chunk=chunk)


def _slug(title: str) -> str:
    words = "".join(letter if letter.isalnum() or letter in ".+-" else " " for letter in title.lower())
    return "-".join(words.split())


def _all() -> Iterator[Setting]:
    for each in (
        _nothing_there,
        _few_events,
        _effects,
        _bounds,
        _ratios,
        _ramps,
        _outages,
        _late_labels,
        _stalls,
        _guards,
        _exact,
        _tails,
        _more,
        _rollouts,
        _agreements,
    ):
        yield from each()


SETTINGS: tuple[Setting, ...] = tuple(sorted(_all(), key=lambda one: one.table == "null_open"))
"""All of them, those of the product's own cap first; `tools/simulate --list` names them."""
