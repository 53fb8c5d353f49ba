"""Requests of experiments that no server answered: read from the logs of the gateways' pods, told to the ledgers."""
