"""What the simulations came to, for people."""
