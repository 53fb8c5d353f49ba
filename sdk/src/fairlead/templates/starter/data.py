"""Made-up customers and orders of a shop, the same for every seed: stands where your warehouse's tables will be.

customers.parquet has one row per customer and week, what was known about them at its event time; orders.parquet has the
orders, and whether each was sent back. Times end at `until`, so that features are fresh when they are served.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

DATA = Path(__file__).parent / "feature_repo" / "data"
WEEKS = 12
CUSTOMERS = 200
ORDERS = 3000


def today() -> datetime:
    """Return the last midnight, UTC."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def make(folder: Path = DATA, *, until: datetime | None = None, seed: int = 1) -> None:
    """Write customers.parquet and orders.parquet into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng(seed)
    end = until or today()
    ids = np.array([f"c{number:04}" for number in range(CUSTOMERS)])
    picky = dice.beta(2, 5, CUSTOMERS)  # how likely a customer sends things back; no column says it
    weeks = pd.date_range(end=end, periods=WEEKS, freq="7D")
    customers = pd.DataFrame(
        {
            "customer_id": np.tile(ids, WEEKS),
            "event_timestamp": np.repeat(weeks, CUSTOMERS),
            "orders_90d": dice.poisson(6, WEEKS * CUSTOMERS).astype("float32"),
            "mean_basket_eur": dice.gamma(4, 15, WEEKS * CUSTOMERS).astype("float32"),
            "return_share_90d": np.clip(np.tile(picky, WEEKS) + dice.normal(0, 0.05, WEEKS * CUSTOMERS), 0, 1).astype(
                "float32"
            ),
        }
    )
    asked = dice.integers(0, CUSTOMERS, ORDERS)
    basket = dice.gamma(4, 15, ORDERS).round(2)
    items = dice.integers(1, 8, ORDERS)
    chance = 1 / (1 + np.exp(-(6 * picky[asked] + 0.3 * items - 0.01 * basket - 3)))
    seconds = np.sort(dice.uniform(0, timedelta(weeks=WEEKS - 1).total_seconds(), ORDERS))
    orders = pd.DataFrame(
        {
            "customer_id": ids[asked],
            "event_timestamp": weeks[0] + pd.to_timedelta(seconds.round(), unit="s"),
            "basket_eur": basket,
            "items": items,
            "returned": (dice.random(ORDERS) < chance).astype("int64"),
        }
    )
    for name, table in (("customers", customers), ("orders", orders)):
        table.to_parquet(folder / f"{name}.parquet", index=False, coerce_timestamps="us")
