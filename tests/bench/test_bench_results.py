"""Medians, goals, and the page that is made of them."""

import json
from pathlib import Path

from bench.further import parse_perf
from bench.goals import goals
from bench.machine import busy_s, tree
from bench.page import differing
from bench.plot import svg
from bench.results import Record, Round, read, records, write

ROOT = Path(__file__).resolve().parents[2]


def measured(cpu_us: float, per_s: float, others: float, system: str = "fairlead") -> Round:
    return Round("v2-json-1x16", system, 1000, per_s, 144, 420, cpu_us, 0, others)


def record(case: str, system: str, cpu_us: float) -> Record:
    return Record(case, system, 1e6 / cpu_us, 100, 200, cpu_us)


def test_cpu_is_the_median_of_all_rounds_and_rates_of_the_quiet_ones() -> None:
    rounds = [measured(12, 80_000, 0.02), measured(13, 78_000, 0.1), measured(30, 20_000, 0.9)]
    (row,) = records(rounds)
    assert (row.cpu_us, row.requests_per_s) == (13, 79_000)


def test_where_no_round_was_quiet_all_of_them_count() -> None:
    (row,) = records([measured(12, 10_000, 0.5), measured(14, 20_000, 0.6)])
    assert row.requests_per_s == 15_000


def test_records_are_exactly_what_is_promised(tmp_path: Path) -> None:
    rows = [record("v2-json-1x16", "native", 8), record("grpc-1x16", "fairlead", 20)]
    write(tmp_path / "server.json", rows)
    first = json.loads((tmp_path / "server.json").read_text())[0]
    assert set(first) == {"case", "system", "requests_per_s", "p50_us", "p99_us", "cpu_us"}
    assert read(tmp_path / "server.json") == rows


def test_a_goal_is_a_ratio_within_the_run() -> None:
    rows = [record("v2-json-1x16", system, cpu) for system, cpu in (("fairlead", 16), ("kserve-default", 400))]
    first = goals(rows, {})[0]
    assert (first.measured, first.met) == ("25.0x", True)


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {goal.met for goal in goals([], {})} == {None}


def test_the_ceiling_is_a_share_of_the_native_server() -> None:
    rows = [record("v2-json-1x16", system, cpu) for system, cpu in (("fairlead", 20), ("native", 8))]
    found = {goal.what: goal for goal in goals(rows, {})}["V2 JSON, fairlead beside the native ceiling"]
    assert (found.measured, found.met) == ("40%", False)


def test_what_is_measured_besides_has_its_goals() -> None:
    further = {
        "p99_at_half": {"rate": 40_000, "fairlead_us": 1900, "nginx_us": 500},
        "workers": {"cpu_us": {"1": 12.0, "2": 12.9}, "shares": [0.46, 0.54]},
        "coldstart": {"plain_s": 1.2, "store_s": 2.9, "store_rss_mib": 350},
        "beside": {"above_ms": 1.2},
    }
    found = [goal.met for goal in goals([], further) if goal.met is not None]
    assert found == [True, True, True, True, True, False, True]


def test_a_profile_keeps_libraries_by_their_short_names() -> None:
    lines = "    52.10%  [kernel.kallsyms]", "    31.00%  libpython3.11.so.1.0", "     9.90%  orjson.cpython-311.so"
    found = {"[kernel.kallsyms]": 0.521, "libpython3.11": 0.31, "orjson": 0.099, "others": 0.07}
    assert parse_perf("\n".join(lines)) == found


def test_busy_time_is_of_the_two_cpus_without_idle_and_waiting() -> None:
    lines = "cpu 9 9 9 9 9 9 9 9", "cpu0 100 0 50 999 999 10 20 20", "cpu1 100 0 0 5 5 0 0 0", "cpu2 7 7 7 7 7 7 7 7"
    assert busy_s("\n".join(lines)) == 3.0


def test_a_tree_begins_with_its_root() -> None:
    assert tree(1)[0] == 1


def test_a_plot_has_a_bar_for_each_system() -> None:
    drawn = svg([record("v2-json-1x16", "native", 8), record("v2-json-1x16", "kserve-default", 1400)])
    assert drawn.count("<rect") == 3  # the ground, and two bars


def test_the_page_agrees_with_its_data() -> None:
    assert differing(ROOT) == []
