"""``python -m fairlead_server``: serve models until a signal to stop."""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING

from fairlead_server.errors import StartupError
from fairlead_server.listening import OwnPorts
from fairlead_server.predict.session import read_model
from fairlead_server.settings import Settings, clock_of, from_arguments
from fairlead_server.termination import write_termination
from fairlead_server.workers.beginning import become_parent, shared_out
from fairlead_server.workers.channel import Place

if TYPE_CHECKING:
    from fairlead_server.workers.handed import HandedOver


def main() -> int:
    """Run the server and return the process' exit code; see ``--help``."""
    settings = from_arguments()
    place = Place.of(os.environ)
    entrance = None if place is None else _handed_over(place)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' deprecations are the developer's business
    # A signal while modules are still imported ends the process as cleanly as a later one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _serve(settings, place, entrance)
        gc.unfreeze()  # else DuckDB finds its objects alive at the very end, and complains on standard error
    except StartupError as error:
        if entrance is not None:
            entrance.fail(str(error), error.exit_code)
            return error.exit_code
        print(f"fairlead_server: {error}", file=sys.stderr)  # noqa: T201 -- the one line for whoever started it
        write_termination(str(error), os.environ)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


def _serve(settings: Settings, place: Place | None, entrance: HandedOver | None) -> None:
    # What is wrong with files and ports is found before the seconds that the rest takes to import.
    clock = clock_of(settings.clock)
    if settings.model is not None:
        read_model(settings.model, settings.model_digest)
    if place is not None:
        settings = shared_out(settings, place)
    ports = entrance or OwnPorts.of(settings)
    if settings.workers > 1 and isinstance(ports, OwnPorts):
        become_parent(settings, ports)
    gc.disable()  # importing makes objects that stay; collecting among them costs a fifth of the start
    del sys.argv[1:]  # kserve parses the command line when it is imported, and knows none of our flags
    from fairlead_server.app import ServerProcess  # noqa: PLC0415 -- see above

    ServerProcess(settings, ports, clock).run()


def _handed_over(place: Place) -> HandedOver:
    from fairlead_server.workers.handed import HandedOver  # noqa: PLC0415 -- only workers need it

    return HandedOver(place)


if __name__ == "__main__":
    sys.exit(main())
