"""``python -m fairlead_server.workers PLAN``: what ``python -m fairlead_server --workers N`` becomes."""

from __future__ import annotations

import json
import sys

from fairlead_server.workers.parent import Plan, run

if __name__ == "__main__":
    sys.exit(run(Plan(**json.loads(sys.argv[1]))))
