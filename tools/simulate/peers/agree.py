"""What independent packages make of the same experiments: cases as JSON on stdin, their figures on stdout.

Runs in an environment of its own (`requirements.txt`), which has nothing of Fairlead.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pandas as pd
import tea_tasting
from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
from gbstats.models.statistics import RatioStatistic, SampleMeanStatistic
from statsmodels.regression.linear_model import OLS

Case = dict[str, Any]
"""``alpha`` and ``units``, each arm's [control, treatment]: ``n`` and ``x`` per unit; ``requests``: unit and value."""


def main() -> None:
    """Answer every case."""
    json.dump([_answer(case) for case in json.load(sys.stdin)], sys.stdout)


def _answer(case: Case) -> dict[str, float]:
    return {**_sequential(case), **_fixed(case), **_clustered(case)}


def _sequential(case: Case) -> dict[str, float]:
    """GrowthBook: the normal mixture of Waudby-Smith et al. on a ratio metric, its clock the number of units."""
    config = SequentialConfig(
        difference_type="absolute", alpha=case["alpha"], sequential_tuning_parameter=case["tuning"]
    )
    test = SequentialTwoSidedTTest(*(_ratio(arm) for arm in case["arms"]), config)
    low, high = test.confidence_interval
    return {"sequential_low": low, "sequential_high": high, "clock": (test.stat_a.n + test.stat_b.n) * test.rho**2}


def _ratio(arm: dict[str, list[float]]) -> RatioStatistic:
    n, x = np.asarray(arm["n"]), np.asarray(arm["x"])
    return RatioStatistic(
        n=n.size,
        m_statistic=SampleMeanStatistic(n=n.size, sum=x.sum(), sum_squares=(x * x).sum()),
        d_statistic=SampleMeanStatistic(n=n.size, sum=n.sum(), sum_squares=(n * n).sum()),
        m_d_sum_of_products=(x * n).sum(),
    )


def _fixed(case: Case) -> dict[str, float]:
    """tea-tasting: a ratio of means at a fixed horizon, by the normal distribution."""
    frames = [pd.DataFrame({"variant": which, **arm}) for which, arm in enumerate(case["arms"])]
    metric = tea_tasting.RatioOfMeans("x", "n", use_t=False, confidence_level=1.0 - case["alpha"])
    found = tea_tasting.Experiment(ratio=metric).analyze(pd.concat(frames))["ratio"]
    return {"fixed_low": found.effect_size_ci_lower, "fixed_high": found.effect_size_ci_upper}


def _clustered(case: Case) -> dict[str, float]:
    """statsmodels: each arm's mean over requests, its variance clustered by unit."""
    variances = []
    for arm in case["requests"]:
        ones = np.ones(len(arm["value"]))
        fitted = OLS(arm["value"], ones).fit(cov_type="cluster", cov_kwds={"groups": np.asarray(arm["unit"])})
        variances.append(float(fitted.cov_params()[0, 0]))
    return {"clustered_variance": sum(variances)}


if __name__ == "__main__":
    main()
