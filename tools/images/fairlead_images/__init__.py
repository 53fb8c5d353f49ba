"""Container images of Fairlead, built by buildah from Containerfiles, without a registry."""
