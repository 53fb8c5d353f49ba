"""What the operator tells a running server of feedback; without it there is no token and no report."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from fairlead.feedback.serving import FEEDBACK_FILE, Feedback
from fairlead_server.exposure.watched import WatchedFile


class ToldFeedback(WatchedFile[Feedback | None]):
    """What ``feedback.json`` says, read again when it changes; None without the file."""

    def __init__(self, serving_dir: Path | None, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """Watch the file.

        Args:
            serving_dir: Where ``feedback.json`` is or will be; None for a server that nobody tells anything.
            monotonic_s: Seconds that never go back, for the interval between looks.
        """
        path = None if serving_dir is None else serving_dir / FEEDBACK_FILE
        super().__init__(path, Feedback.loaded, None, monotonic_s)
