"""Experiments: what is compared, how, and what may be said of it. Pure: no clock, no network, no store."""
