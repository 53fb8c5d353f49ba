"""``fairlead fetch``: brings a model file into a pod, verified; the storage initializer of KServe's containers."""
