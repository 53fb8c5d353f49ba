"""One machine: server processes, a real Envoy, files. What ``fairlead up`` runs."""
