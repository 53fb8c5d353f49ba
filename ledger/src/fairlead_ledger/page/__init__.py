"""The experiment page: what an experiment says, for people, in plain HTML that needs nothing else."""
