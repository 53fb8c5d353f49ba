"""Where a plan is carried out: one interface, one package per platform."""
