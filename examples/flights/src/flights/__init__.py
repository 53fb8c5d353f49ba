"""The flights example: departures from New York in 2013, as features, models and live traffic."""
