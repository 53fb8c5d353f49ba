"""The model server under a mixed load for a while: ``make soak``, or ``python tools/soak --help``."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))  # its model, its requests, its ledger

from soak.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
