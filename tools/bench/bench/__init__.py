"""Model servers side by side on one machine, by CPU per request."""
