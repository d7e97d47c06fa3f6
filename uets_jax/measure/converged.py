"""Whether a run would end at a target if it cooled down now."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RECENT = 0.3  # share of the steps whose checks count
FEWEST = 4  # checks; before there are so many nothing is predicted


class Prediction(NamedTuple):
    """Loss at the end of a cool-down that begins now, its standard error, and whether
    the target is surely enough reached; nan and inf where nothing can be said.
    """

    loss: float
    error: float
    reached: bool


def converged(
    history: Sequence[Sequence[int | float]],
    target: float,
    cooldown: float = 0.25,
    z: float = 2.0,
) -> Prediction:
    """Extrapolates the losses of averaged weights to what a cool-down would reach.

    A line of the loss on x = ln(step) through the checks of the latest 30 % of the
    steps, four at least: its slope is the median of those of all pairs, its height the
    median of what is left (Theil 1950, Sen 1968), so that one odd check moves it
    little. It is read at x* = ln((1 + cooldown / 2) step), because a rate that falls to
    0 in a line moves half as far as one that stays, with the error of one more loss

        s sqrt(1 + 1 / n + (x* - mean x)^2 / sum (x - mean x)^2),

    s^2 = sum of squared residuals / (n - 2), of least squares with equal, independent
    noise; an odd check makes it larger. Reached: loss + z error <= target.

    Assumed, not shown: that weights averaged at a constant rate are as good as cooled
    ones that have moved as far, and that the curve is straight in ln(step) from the
    oldest check to x*. It bends upwards, so that the line is somewhat low; checks on
    one text err alike, so that the error says nothing of other texts.

    Args:
      history: (step, loss) of each check at a constant rate, steps rising; the first
        ones may be missing.
      target: in the unit of the losses.
      cooldown: steps of the cool-down as a share of those before it.
      z: standard errors of safety; at 2, with normal noise and four checks, the line
        alone errs on the wrong side in 9 % of the cases (Student's t).
    """
    if len(history) < FEWEST:
        return Prediction(math.nan, math.inf, False)
    steps, losses = np.asarray(history, np.float64).T
    recent = int((steps >= (1 - RECENT) * steps[-1]).sum())
    x, y = (all_[-max(recent, FEWEST) :] for all_ in (np.log(steps), losses))
    i, j = np.triu_indices(len(x), 1)
    slope = float(np.median((y[j] - y[i]) / (x[j] - x[i])))
    height = float(np.median(y - slope * x))
    end = math.log((1 + cooldown / 2) * steps[-1])
    residuals, away = y - slope * x - height, x - x.mean()
    spread = 1 + 1 / len(x) + (end - x.mean()) ** 2 / np.square(away).sum()
    error = math.sqrt(np.square(residuals).sum() / (len(x) - 2) * spread)
    loss = height + slope * end
    return Prediction(loss, error, loss + z * error <= target)
