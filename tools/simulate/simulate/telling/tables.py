"""Results as tables: one per kind of setting, one row per setting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from simulate.runner import Result

Cell = Callable[[Result], str]
Table = Mapping[str, Cell]
"""Headings and what stands under them."""


def percent(column: str) -> Cell:
    """Return a share of runs in per cent, with its standard error."""

    def cell(result: Result) -> str:
        summary = result["columns"][column]
        if summary["mean"] is None:
            return ""
        error = f" ± {100 * summary['se']:.1f}" if summary["se"] is not None else ""
        return f"{100 * summary['mean']:.1f}{error}"

    return cell


def number(column: str, form: str = ".2f", *, of: str = "mean", factor: float = 1.0) -> Cell:
    """Return a mean, a median or another figure of a column."""

    def cell(result: Result) -> str:
        found = result["columns"][column][of]
        return "" if found is None else format(factor * found, form)

    return cell


def bias(column: str) -> Cell:
    """Return a mean with its standard error and its sign."""

    def cell(result: Result) -> str:
        summary = result["columns"][column]
        return f"{summary['mean']:+.4f} ± {summary['se']:.4f}"

    return cell


def stop(column: str = "stop") -> Cell:
    """Return the median stop in per cent of the traffic."""

    def cell(result: Result) -> str:
        found = result["columns"][column]["median"]
        return "-" if found is None or found > 1 else f"{100 * found:.0f}"

    return cell


def units(column: str, of: str) -> Cell:
    """Return a quantile of how many units it took."""

    def cell(result: Result) -> str:
        found = result["columns"][column][of]
        return "-" if found is None else f"{found:,.0f}"

    return cell


_NULL: Table = {
    "**ours**": percent("missed"),
    "ours, relative": percent("missed_relative"),
    "tuned to a tenth": percent("missed_early"),
    "without gate": percent("missed_ungated"),
    "requests, every look": percent("requests_z"),
    "units, every look": percent("units_z"),
    "units, once": percent("units_z_end"),
    "tested at the end": percent("tested_end"),
    "width": number("width"),
    "n_eff": number("n_eff", ".0f", of="median"),
}
TABLES: Mapping[str, Table] = {
    "null": _NULL,
    "null_open": _NULL,
    "few": _NULL,
    "effect": {
        "found": percent("found"),
        "median stop": stop(),
        "planned": number("planned", ".0f", factor=100),
        "planned / seen": number("planned_over_seen"),
        "truth left out": percent("missed"),
        "the same, relative": percent("missed_relative"),
        "wrong sign": percent("wrong_sign"),
        "estimate at the stop / truth": number("overstated", of="median"),
        "one test at the end": percent("units_z_found_end"),
        "tested at the end": percent("tested_end"),
    },
    "bounds": {
        "two-sided": percent("two_sided"),
        "one-sided": percent("one_sided"),
        "two-sided e-value": percent("e_two_sided"),
        "one-sided e-value": percent("e_one_sided"),
    },
    "duration": {
        "planned for 50 %": number("planned_50%", ".1f"),
        "median seen": number("stop", ".1f", of="median"),
        "found by then": percent("found_by_planned_50%"),
        "planned for 80 %": number("planned_80%", ".1f"),
        "found by then ": percent("found_by_planned_80%"),
        "planned for 90 %": number("planned_90%", ".1f"),
        "found by then  ": percent("found_by_planned_90%"),
    },
    "frozen": {"two-sided": percent("two_sided")},
    "ratio": {
        "found": percent("found"),
        "median units": units("units", "median"),
        "90 % by": units("units", "q90"),
        "chi-square at every look": percent("naive"),
    },
    "ramp": {
        "**last step alone**": percent("missed"),
        "first step alone": percent("missed_first_step"),
        "pooled": percent("pooled"),
        "bias": bias("bias"),
        "bias, pooled": bias("pooled_bias"),
    },
    "outage": {
        "**nobody exposed meanwhile**": percent("missed"),
        "control counted on": percent("control_counted"),
        "bias": bias("bias"),
        "bias, control counted on": bias("control_counted_bias"),
    },
    "late": {
        "**matured**": percent("missed"),
        "missing taken for 0": percent("as_zero"),
        "what is known so far": percent("known_so_far"),
        "coverage called broken": percent("coverage_broken"),
        "wrong while not broken": percent("missed_while_sound"),
        "bias": bias("bias"),
        "bias expected": number("bias_expected", "+.4f"),
        "requests judged": percent("used"),
    },
    "stall": {
        "**1, 5 and 30 minutes**": percent("missed"),
        "1 minute alone": percent("minutes_alone"),
        "units alone": percent("units_alone"),
        "without gate": percent("missed_ungated"),
        "tested at the end": percent("tested_end"),
        "variance over that of units": number("variance_ratio", ".1f", of="median"),
    },
    "guard": {
        "alarm": percent("alarm"),
        "median stop": stop("stop_alarm"),
        "shown safe": percent("safe"),
        "median stop ": stop("stop_safe"),
    },
    "exact": {
        "alarm": percent("alarm"),
        "median units": units("alarm_units", "median"),
        "shown safe": percent("safe"),
    },
    "tail": {
        "control's left out": percent("missed_control"),
        "treatment's left out": percent("missed_treatment"),
        "ratio left out": percent("missed_ratio"),
        "alarm": percent("alarm"),
        "shown safe": percent("safe"),
        "bounded": percent("open"),
    },
    "covariate": {
        "truth left out": percent("missed_plain"),
        "adjusted by units": percent("missed_units"),
        "by requests": percent("missed_requests"),
        "found": percent("found_plain"),
        "found, by units": percent("found_units"),
        "found, by requests": percent("found_requests"),
        "variance, by units": number("variance_ratio_units", of="median"),
        "by requests ": number("variance_ratio_requests", of="median"),
    },
    "arms": {
        "**ours**": percent("missed"),
        "alpha not shared": percent("uncorrected"),
        "all tested at the end": percent("tested_end"),
    },
    "rollout": {
        "Superior": percent("superior"),
        "Harmful": percent("harmful"),
        "GuardrailBreached": percent("breached"),
        "NoWorthwhileEffect": percent("no_worthwhile_effect"),
        "SampleRatio": percent("sample_ratio"),
        "LabelCoverage": percent("label_coverage"),
        "undecided at the end": percent("undecided"),
        "median stop": stop(),
    },
    "agreement": {
        "gbstats, sequential interval": number("gbstats", ".0e", of="largest"),
        "tea-tasting, fixed horizon": number("tea_tasting", ".0e", of="largest"),
        "statsmodels, clustered variance": number("statsmodels", ".0e", of="largest"),
    },
}


def table_of(name: str, results: Sequence[Result]) -> str:
    """Return a table in Markdown, with how many runs each row is of, and what does not hold in it."""
    return "\n".join(_lines(TABLES[name], results))


def _lines(table: Table, results: Sequence[Result]) -> Iterator[str]:
    yield f"| setting | runs | {' | '.join(table)} |"
    yield "|---|---|" + "---|" * len(table)
    for result in results:
        broken = [claim for claim, holds in result["claims"].items() if not holds]
        title = result["title"] + (f" (**does not hold:** {'; '.join(broken)})" if broken else "")
        yield f"| {title} | {result['runs']:,} | {' | '.join(cell(result) for cell in table.values())} |"
