"""Control loop of Fairlead: one pure core, on Kubernetes and on one machine."""
