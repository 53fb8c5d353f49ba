"""What Fairlead adds around Feast: feature services described for contracts, and a local store fit for serving."""
