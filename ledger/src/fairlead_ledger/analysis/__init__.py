"""Analysis over HTTP: what evidence says, what was said of it over time, and what was decided on it."""
