"""From nothing to verdict-ready traffic on a real cluster, and back to nothing: ``make e2e``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from e2e.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
