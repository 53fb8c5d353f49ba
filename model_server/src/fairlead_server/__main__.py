"""``python -m fairlead_server``: serve one model until a signal to stop."""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings

from fairlead_server.errors import StartupError
from fairlead_server.listening import OwnPorts
from fairlead_server.predict.session import read_model
from fairlead_server.settings import Settings, clock_of, from_arguments
from fairlead_server.termination import write_termination


def main() -> int:
    """Run the server and return the process' exit code; see ``--help``."""
    settings = from_arguments()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' deprecations are the developer's business
    # A signal while modules are still imported ends the process as cleanly as a later one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _serve(settings)
        gc.unfreeze()  # else DuckDB finds its objects alive at the very end, and complains on standard error
    except StartupError as error:
        print(f"fairlead_server: {error}", file=sys.stderr)  # noqa: T201 -- the one line for whoever started it
        write_termination(str(error), os.environ)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


def _serve(settings: Settings) -> None:
    # What is wrong with files and ports is found before the seconds that the rest takes to import.
    clock = clock_of(settings.clock)
    read_model(settings.model, settings.model_digest)
    ports = OwnPorts.of(settings)
    gc.disable()  # importing makes objects that stay; collecting among them costs a fifth of the start
    del sys.argv[1:]  # kserve parses the command line when it is imported, and knows none of our flags
    from fairlead_server.app import ServerProcess  # noqa: PLC0415 -- see above

    ServerProcess(settings, ports, clock).run()


if __name__ == "__main__":
    sys.exit(main())
