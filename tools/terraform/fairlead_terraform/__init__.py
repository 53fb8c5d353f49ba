"""What `make terraform` and `make gen` do with the folder ``terraform/``."""
