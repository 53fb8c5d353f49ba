"""Whether the statistics hold, by simulation: ``make simulate``, or ``python tools/simulate --help``."""

import sys

from simulate.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
