"""What values in requests and headers may look like: taken, refused, and close to either."""

from __future__ import annotations

from typing import Any, Final

ODD_NUMBERS: Final = (
    *("null", "true", '"1"', '"x"', "[]", "{}", "[1]", "NaN", "Infinity", "-Infinity", "nan", "01", "-01", "+1", "1."),
    *(".5", "0x1", "1_0", "1e", "1e+", "--1", "-", "", "1 2", "1,2", "1,", ",1", "/**/1", "1}", "]", "],[", "[", "1]"),
    *("1e5", "1E+5", "1e-5", "-0", "-0.0", "0e0", "1.0", "1e2", "5.5", "2.5e1", "1e-400", "-1e-46", "1e-45", "1.5e300"),
    *("3.4028234e38", "3.4028235e38", "3.40282355e38", "3.4028235677973366e38", "3.4028236e38", "-3.4028236e38"),
    *("65504", "65519", "65520", "1e308", "1.8e308", "1e309", "-1e999", "16777217", "9007199254740993", "128", "-129"),
    *("255", "256", "2147483647", "2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775809"),
    *("18446744073709551615", "18446744073709551616", "123456789012345678901234567890", "1" * 400, "0." + "1" * 400),
    *("0.1000000000000000055511151231257827021181583404541015625", "1\t", "\n1", "1\r\n", "\x0b1", "1\x00", "\u00a01"),
    *('1],"data":[2', '1],"shape":[1', '1],"b":[1', "\uff11", "1/1", "1;2", "1:2", '"a":1'),
)
ODD_TEXTS: Final = (
    *('""', '"]"', '"[1]"', '"a]}"', '"\\""', '"\\\\"', '"\\u00e9"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"'),
    *('"\n"', '"a', "a", "null", "1", "true", '["a"]', '"a" "b"', '"a","b"', "'a'", '"data":[', '"%b"', '"%"', '"\\x"'),
    *('"' + "x" * 300 + '"', '"\u00e9"', '"\U0001f600"', '"a:b"', '"{}"'),
)
ODD_TRUTHS: Final = ("1", "0", '"true"', "null", "True", "TRUE", "[true]", "truefalse", "true,false", "tru", "1.0")
ODD: Final[tuple[Any, ...]] = (None, True, "1.5", "x", [], [1.0], {}, {"a": 1}, -1, 0, 1.5)

HEADERS: Final[tuple[tuple[bytes, ...], ...]] = (
    (),
    (),
    (b"Content-Type: application/json",),
    (b"Connection: keep-alive", b"X-Request-Id: 1"),
    (b"x-envoy-expected-rq-timeout-ms: 60000",),
)
RARE_HEADERS: Final[tuple[tuple[bytes, ...], ...]] = (
    (b"Connection: close",),
    (b"CONNECTION: Keep-Alive, x",),
    (b"Expect: 100-continue",),
    (b"Expect: something",),
    (b"Content-Encoding: gzip",),
    (b"content-encoding: Identity",),
    (b"Content-Encoding:",),
    (b"x-envoy-expected-rq-timeout-ms: soon",),
    (b"x-envoy-expected-rq-timeout-ms: 0",),
    (b"x-envoy-expected-rq-timeout-ms: 99999999999999",),
    (b"X-Envoy-Expected-Rq-Timeout-Ms: 60000", b"x-envoy-expected-rq-timeout-ms: 70000"),
    (b"inference-header-content-length: 4",),
    (b"inference-header-content-length: 99999",),
    (b"inference-header-content-length: +4",),
    (b"Inference-Header-Content-Length:",),
    (b"X-Odd: \xff\xfe",),
)
BROKEN_HEADERS: Final[tuple[tuple[bytes, ...], ...]] = (
    (b"Upgrade: h2c", b"Connection: upgrade"),
    (b"Transfer-Encoding: identity",),
    (b"X-Folded: a", b" b: c"),
    (b"Content-Length: 7",),
    (b"no colon",),
    (b"X-Nul: \x00",),
)
