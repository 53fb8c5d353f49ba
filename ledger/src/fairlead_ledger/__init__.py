"""The ledger: exposures and outcomes of experiments in SQL, and what they come to."""
