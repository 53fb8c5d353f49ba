"""What the image runs: ``fetch URI FOLDER`` fetches a model; anything else are arguments of the server."""

import runpy
import sys

module = "fairlead_server"
if sys.argv[1:2] == ["fetch"]:
    module = "fairlead_server.fetch"
    del sys.argv[1]
runpy.run_module(module, run_name="__main__", alter_sys=True)
