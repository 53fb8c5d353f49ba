"""Guardrails of proportions while the sample is small: exact at any size, with no approximation at all.

Each unit gives one value of 0 to 1 that never changes again: that of its first request. An arm's values then have a
likelihood ``p^total (1 - p)^(units - total)``, which for values between 0 and 1 is no likelihood but still a fair bet
(Waudby-Smith, Ramdas 2024, Estimating means of bounded random variables by betting). What a mixture of bets on both
arms wins over the best explanation that the hypothesis has to offer is an e-process, whatever the unknown rates are
(universal inference: Wasserman, Ramdas, Balakrishnan 2020; two arms: Turner, Ly, Grünwald 2024, Generic E-variables
for Exact Sequential k-Sample Tests).

Values are oriented so that more is worse. Functions take floats or arrays of one shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, logsumexp, xlogy

from fairlead.experiment.sums import Number

_PRIORS = ((0.5, 0.5), (0.5, 50.0))
"""Beta distributions of the bets on a rate: anywhere; and near 0, where rates of errors are."""
_BISECTIONS = 60


@dataclass(frozen=True, slots=True)
class Trials:
    """One value of 0 to 1 per unit of an arm; more is worse."""

    units: Number
    total: Number
    """Sum of the values, 0 to ``units``."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a treatment's rate may be at most, given control's: ``slope x rate + shift``."""

    slope: float
    shift: float


def log_e_harm(control: Trials, treatment: Trials, limit: Limit) -> Number:
    """Return ln of the e-value against "the treatment is within the limit"."""
    return _bets(control, treatment) - _best(control, treatment, limit, is_within=True)


def log_e_safe(control: Trials, treatment: Trials, limit: Limit) -> Number:
    """Return ln of the e-value against "the treatment is at the limit or beyond"."""
    return _bets(control, treatment) - _best(control, treatment, limit, is_within=False)


def log_e_unequal(arms: tuple[Trials, ...]) -> Number:
    """Return ln of the e-value against "all arms have the same rate"."""
    units, total = (
        np.sum([np.asarray(getattr(arm, name), np.float64) for arm in arms], 0) for name in ("units", "total")
    )
    apart = [sum(_bet(arm, prior) for arm in arms) for prior in _PRIORS]
    return logsumexp(apart, axis=0) - np.log(len(apart)) - _likelihood(Trials(units, total), _share(units, total))


def _bets(control: Trials, treatment: Trials) -> Number:
    """Return ln of what is won by bets on two rates of their own, and on one in common, in equal parts."""
    both = Trials(control.units + treatment.units, control.total + treatment.total)
    each = [_bet(control, prior) + _bet(treatment, prior) for prior in _PRIORS]
    each += [_bet(both, prior) for prior in _PRIORS]
    return logsumexp(each, axis=0) - np.log(len(each))


def _bet(arm: Trials, prior: tuple[float, float]) -> Number:
    worse, better = prior
    return betaln(worse + arm.total, better + (arm.units - arm.total)) - betaln(worse, better)


def _best(control: Trials, treatment: Trials, limit: Limit, *, is_within: bool) -> Number:
    """Return ln of the likelihood of the two rates that explain the values best, of those the hypothesis allows."""
    c, t = _share(control.units, control.total), _share(treatment.units, treatment.total)
    edge = limit.slope * c + limit.shift
    allowed = t <= edge if is_within else t >= edge
    free = _likelihood(control, c) + _likelihood(treatment, t)
    rate = _on_limit(control, treatment, limit)
    bound = _likelihood(control, rate) + _likelihood(treatment, np.clip(limit.slope * rate + limit.shift, 0.0, 1.0))
    return np.where(allowed, free, bound)[()]


def _on_limit(control: Trials, treatment: Trials, limit: Limit) -> Number:
    """Return control's rate that explains the values best where the treatment's is at the limit; by bisection."""
    shape = np.broadcast(control.units, control.total, treatment.units, treatment.total).shape
    least = max(0.0, -limit.shift / limit.slope)
    low, high = np.full(shape, least), np.full(shape, max(min(1.0, (1.0 - limit.shift) / limit.slope), least))
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(_BISECTIONS):
            rate = (low + high) / 2
            slope = _slope(control, rate) + limit.slope * _slope(treatment, limit.slope * rate + limit.shift)
            low, high = np.where(slope > 0, rate, low), np.where(slope > 0, high, rate)
    return (low + high) / 2


def _slope(arm: Trials, rate: Number) -> Number:
    return np.asarray(arm.total, np.float64) / rate - (np.asarray(arm.units, np.float64) - arm.total) / (1 - rate)


def _likelihood(arm: Trials, rate: Number) -> Number:
    return xlogy(arm.total, rate) + xlogy(arm.units - arm.total, 1 - np.asarray(rate, np.float64))


def _share(units: Number, total: Number) -> Number:
    return np.asarray(total, np.float64) / np.maximum(units, 1)
