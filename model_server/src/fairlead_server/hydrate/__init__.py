"""From entity keys to features: plan, read, state, policy."""
