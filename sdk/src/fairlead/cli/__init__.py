"""The command line: ``fairlead``."""
