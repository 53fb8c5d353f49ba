"""Take the picture of docs/concepts/experiment-page.md: `python tools/experiment_page.py [FILE]`, a few seconds.

A treatment that is better is told to a running ledger day by day, and promoted as soon as that is shown; what is seen
in a browser then is the picture.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs/concepts/experiment-page.png"
SCREEN = (880, 1240)
MOST_DAYS = 40


def main(arguments: list[str]) -> None:
    """Tell the story and take the picture."""
    sys.path.append(str(ROOT / "tests"))
    from support.browser import chromium  # noqa: PLC0415 -- found by the path above
    from support.experiment_story import Story  # noqa: PLC0415
    from support.ledgers import ledger_process  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder, ledger_process(Path(folder)) as ledger:
        story = Story(ledger, gain=0.3)
        story.declare()
        story.days(3, phase=0, units=150)
        for _ in range(MOST_DAYS):
            story.days(1, phase=1, units=60)
            if story.analysis(1).json()["verdict"] == "Pass":
                break
        story.decide("Promote", "Superior", winner="boosted").raise_for_status()
        with chromium(Path(folder) / "profile") as tab:
            tab.screen(*SCREEN)
            tab.open(story.page)
            picture = Path(arguments[0]) if arguments else PICTURE
            picture.write_bytes(tab.screenshot(whole=False))
    print(f"wrote {picture}, {picture.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
