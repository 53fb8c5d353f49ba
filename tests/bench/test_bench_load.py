"""What load programs print, read by the bench."""

from pathlib import Path

import pytest
from bench.load import LoadFailed, parse_h2load, parse_wrk, write_requests

H2LOAD = """starting benchmark...
spawning thread #0: 16 total client(s).

finished in 1.00s, 101094.00 req/s, 11.28MB/s
requests: {done} total, {done} started, {done} done, {succeeded} succeeded, 0 failed, 0 errored, 0 timeout
status codes: {succeeded} 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 11.28MB (11828115) total, 493.66KB (505502) headers (space savings 91.94%), 9.93MB ({data}) data
                     min         max         mean         sd        +/- sd
"""
ROWS = [f"16800000{number}\t200\t{100 + number}" for number in range(101)]


def test_wrk_tells_requests_seconds_quantiles_and_errors() -> None:
    load = parse_wrk("Running 2s test\nRESULT 81000 2000000 144 420 3\n", 1.5)
    assert (load.requests, load.seconds, load.p50_us, load.p99_us, load.errors) == (81000, 2.0, 144, 420, 3)


def test_wrk_that_says_nothing_has_failed_with_its_last_line() -> None:
    with pytest.raises(LoadFailed, match="unable to connect"):
        parse_wrk("Running\nunable to connect\n", 0)


def test_h2load_tells_quantiles_from_its_log() -> None:
    load = parse_h2load(H2LOAD.format(done=101, succeeded=101, data=101 * 103), ROWS, 0.9)
    assert (load.requests, load.seconds, load.errors) == (101, 1.0, 0)
    assert load.p50_us == pytest.approx(150)
    assert load.p99_us == pytest.approx(200, abs=1)


def test_grpc_errors_are_found_though_their_http_status_is_200() -> None:
    assert parse_h2load(H2LOAD.format(done=101, succeeded=101, data=0), ROWS, 0.9).errors == 101


def test_failed_requests_are_errors() -> None:
    assert parse_h2load(H2LOAD.format(done=101, succeeded=90, data=101 * 103), ROWS, 0.9).errors == 11


def test_h2load_without_a_log_has_failed() -> None:
    with pytest.raises(LoadFailed):
        parse_h2load("finished in 1.00s, 0.00 req/s\nrequests: none\n", [], 0)


def test_requests_are_written_after_their_length(tmp_path: Path) -> None:
    write_requests(tmp_path / "requests", [b"POST /a\r\n\r\n{}", b"x"])
    assert (tmp_path / "requests").read_bytes() == b"13\nPOST /a\r\n\r\n{}1\nx"
