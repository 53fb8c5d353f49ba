"""What drives the core: one reconcile at a time, from the world as it is."""
