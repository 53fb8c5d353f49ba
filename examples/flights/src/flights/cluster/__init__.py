"""The flights example in a cluster, where clocks are real: what runs in its pods, and what should come of it."""
