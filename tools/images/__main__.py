"""Build Fairlead's container images: see ``fairlead_images.commands``."""

import sys

from fairlead_images.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
