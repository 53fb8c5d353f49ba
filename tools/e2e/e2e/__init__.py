"""From nothing to a cluster that serves the flights example, through every fault that it must survive: ``make e2e``."""
