"""Skew: what was served, beside what a point-in-time join of the same moment gives, and why they differ."""
