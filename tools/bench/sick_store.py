"""An online store that is frozen, killed, cut off or failed over, under load; ``--help`` says how."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))  # servers are started as the tests do

from bench.sick.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
