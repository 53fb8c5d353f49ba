"""Log lines: one each, and never more than a bound, whatever clients do."""

from __future__ import annotations

import logging

from fairlead_server.logs import Damper, KeyValueFormatter


class Heard(logging.Handler):
    """Keeps the lines that a damper lets through."""

    def __init__(self, damper: Damper) -> None:
        super().__init__()
        self.addFilter(damper)
        self.setFormatter(KeyValueFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record).partition(" level=")[2])


def logger_of(name: str, heard: Heard) -> logging.Logger:
    logger = logging.Logger(name)  # noqa: LOG001 -- one that nobody else has
    logger.addHandler(heard)
    return logger


def test_a_message_is_written_a_few_times_a_minute_and_says_how_often_it_was_not() -> None:
    now_s = [0.0]
    heard = Heard(Damper(lambda: now_s[0]))
    logger = logger_of("fairlead_server.x", heard)
    for n in range(1000):
        logger.error("request failed error=%s", n)
    logger.error("another message")
    assert heard.lines == [*(f"error request failed error={n}" for n in range(100)), "error another message"]
    now_s[0] = 61.0
    logger.error("request failed error=%s", "%s")
    assert heard.lines[-1] == "error request failed error=%s held_back=900"
    logger.error("request failed error=%s", 7)
    assert heard.lines[-1] == "error request failed error=7"


def test_what_a_library_says_counts_as_one_message() -> None:
    heard = Heard(Damper(lambda: 0.0))
    logger = logger_of("uvicorn.error", heard)
    for n in range(1000):
        logger.error(f"connection {n} is broken")  # noqa: G004 -- as libraries do
    assert len(heard.lines) == 100


def test_the_damper_remembers_a_bounded_number_of_messages() -> None:
    heard = Heard(Damper(lambda: 0.0))
    logger = logger_of("fairlead_server.x", heard)
    for n in range(1000):
        logger.error(f"message {n}")  # noqa: G004 -- different messages
    assert len(heard.lines) == 1000
