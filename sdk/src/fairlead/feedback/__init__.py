"""Feedback: what a server says of a prediction, and what an application says of it later."""
