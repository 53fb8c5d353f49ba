"""Train, evaluate and package the two flights models. See ``--help``."""

from flights.training import app

if __name__ == "__main__":
    app()
