"""From what was told to what is kept: who told it, what it says, and the queue before the database."""
