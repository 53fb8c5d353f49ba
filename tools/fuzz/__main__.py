"""Broken bytes for every decoder and engine of the model server: ``make fuzz``, or ``python tools/fuzz --help``."""

import sys

from fuzz.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
