"""What goes wrong with images, with messages that name the fix.

ImageError
├── Unavailable    this machine cannot build them
└── BuildFailed    a program that takes part in a build has failed
"""

from __future__ import annotations


class ImageError(Exception):
    """Images cannot be built or read."""


class Unavailable(ImageError):
    """This machine lacks what building needs: root, a program."""


class BuildFailed(ImageError):
    """A program that takes part in a build has failed; the message has its last lines."""
