"""Features of an online store beside Feast's own call and the bare round trip; ``--help`` says how."""

import sys

from bench.hydration.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
