"""The prediction log: a sample of hydrated requests, written to files off the request path."""
