"""Format, validate and test what is in ``terraform/``: see ``fairlead_terraform.commands``."""

import sys

from fairlead_terraform.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
