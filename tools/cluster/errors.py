"""What goes wrong with the test cluster, with messages that name the fix.

ClusterError
└── Unavailable    this machine cannot have one
"""

from __future__ import annotations


class ClusterError(Exception):
    """The test cluster cannot be built, started or stopped."""


class Unavailable(ClusterError):
    """This machine lacks what a cluster needs: root, a program, Go."""
