"""``python -m fairlead_server.fetch URI DEST``."""

from __future__ import annotations

import sys

from fairlead_server.fetch.command import end, main

if __name__ == "__main__":
    end(main(sys.argv[1:]))
