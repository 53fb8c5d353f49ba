"""Several processes that serve as one: a light parent accepts connections and gives each to a worker."""
