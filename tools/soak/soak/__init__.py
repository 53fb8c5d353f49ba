"""A soak: whether the server stays as it is for as long as it is used."""
