"""Features beside Feast's own call and beside the bare round trip, in one process and run."""
