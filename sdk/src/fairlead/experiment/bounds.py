"""Intervals and tests that stay valid however often one looks.

The normal mixture (Robbins 1970; Johari, Koomen, Pekelis, Walsh 2017, Peeking at A/B Tests; Howard, Ramdas, McAuliffe,
Sekhon 2021; with plug-in variance: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024, Time-uniform central limit theory
and asymptotic confidence sequences). Its clock is information, ``u = eta² / variance``: never a count of units or
requests. ``eta``, the mixture's width, is fixed before the start at 0.75 of the effect that matters, in the effect's
own scale; three times too wide costs a few points of power, three times too narrow a third of it.

An *e-value* is evidence against a hypothesis; it reaches 1/alpha, ever, with a probability of alpha at most if the
hypothesis is true. All functions take floats or arrays.
"""

from __future__ import annotations

import numpy as np
from scipy.special import lambertw, log_ndtr

from fairlead.experiment.sums import Number

ETA = 0.75
"""Width of the mixture over the effect that matters."""
_TINY = 1e-300
_LARGEST = 1e6
_NEWTON_STEPS = 6


def clock(variance: Number, *, effect: Number) -> Number:
    """Return u for a variance, where ``effect`` is what matters in the same scale; finite and above 0 always."""
    with np.errstate(divide="ignore"):
        return np.clip(np.divide((ETA * np.asarray(effect, np.float64)) ** 2, variance), _TINY, 1 / _TINY)


def two_sided(u: Number, *, alpha: float) -> Number:
    """Return z*: the interval is effect ± z* x deviation, at every look at once."""
    u = np.maximum(u, _TINY)
    with np.errstate(over="ignore"):
        return np.sqrt((1 + 1 / u) * (np.log1p(u) - 2 * np.log(alpha)))


def one_sided(u: Number, *, alpha: float) -> Number:
    """Return z1*: effect - z1* x deviation is a lower bound at every look at once; + an upper one, alone.

    The exact inverse of `log_e_one_sided`; at most ``sqrt((1 + 1/u) 2 ln(1 + sqrt(1+u) / (2 alpha)))``, which is the
    closed form in the literature and where the search begins.
    """
    u = np.maximum(u, _TINY)
    target = 0.5 * np.log1p(u) - np.log(2 * alpha)
    y = np.sqrt(2 * np.logaddexp(0.0, target))
    for _ in range(_NEWTON_STEPS):  # the function is convex: from above, each step stays above
        slope = y + np.exp(-0.5 * y**2 - log_ndtr(y)) / np.sqrt(2 * np.pi)
        y = np.maximum(y - (0.5 * y**2 + log_ndtr(y) - target) / slope, 0.0)
    with np.errstate(over="ignore"):
        return y * np.sqrt(1 + 1 / u)


def log_e_two_sided(z: Number, u: Number) -> Number:
    """Return ln of the e-value against "no effect", z being effect over deviation."""
    u = np.asarray(u, np.float64)
    return 0.5 * np.asarray(z, np.float64) ** 2 * (u / (1 + u)) - 0.5 * np.log1p(u)


def log_e_one_sided(z: Number, u: Number) -> Number:
    """Return ln of the e-value against "the effect is 0 or less"."""
    u = np.asarray(u, np.float64)
    y = np.asarray(z, np.float64) * np.sqrt(u / (1 + u))
    return np.log(2.0) - 0.5 * np.log1p(u) + 0.5 * y**2 + log_ndtr(y)


def finite(log_e: float) -> float:
    """Return ln of an e-value as a number that can be written: what is impossible has an infinite one."""
    return min(max(log_e, -_LARGEST), _LARGEST)


def p_value(log_e: Number) -> Number:
    """Return the always-valid p-value of an e-value at one look; over looks, their minimum is one too."""
    return np.exp(-np.maximum(log_e, 0.0))


def best_clock(alpha: float) -> float:
    """Return the u at which the two-sided interval is narrowest for its information; 8.2 at 5 %."""
    return float(-np.real(lambertw(-(alpha**2) / np.e, -1)) - 1)
