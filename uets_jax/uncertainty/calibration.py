"""How good probabilities and uncertainties are, in NumPy."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 15


class Reliability(NamedTuple):
    """Predictions by their confidence, in bins of equal width (lower, upper].

    number:     predictions in the bin.
    confidence: their mean; 0 in an empty bin.
    accuracy:   share of them that are right; 0 in an empty bin.
    """

    lower: Float[np.ndarray, " k"]
    upper: Float[np.ndarray, " k"]
    number: Int[np.ndarray, " k"]
    confidence: Float[np.ndarray, " k"]
    accuracy: Float[np.ndarray, " k"]


def reliability(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], bins: int = BINS
) -> Reliability:
    """The rows of a reliability diagram (DeGroot & Fienberg 1983)."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.ceil(np.asarray(confidence) * bins).astype(int) - 1, 0, bins - 1)
    number = np.bincount(place, minlength=bins)
    mean = lambda x: np.bincount(place, x, bins) / np.maximum(number, 1)
    truth = np.asarray(right, np.float64)
    return Reliability(edges[:-1], edges[1:], number, mean(confidence), mean(truth))


def ece(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], bins: int = BINS
) -> float:
    """Expected calibration error: mean |accuracy - confidence| (Naeini et al. 2015)."""
    rows = reliability(confidence, right, bins)
    gaps = np.abs(rows.accuracy - rows.confidence)
    return float(rows.number @ gaps / max(rows.number.sum(), 1))


def nll(
    probabilities: Float[np.ndarray, "n v"], labels: Int[np.ndarray, " n"]
) -> float:
    """Mean -log p(label), nats."""
    picked = np.take_along_axis(probabilities, labels[:, None], 1)
    return float(-np.log(np.maximum(picked, np.finfo(np.float32).tiny)).mean())


def brier(
    probabilities: Float[np.ndarray, "n v"], labels: Int[np.ndarray, " n"]
) -> float:
    """Mean ||p - y||^2 over all classes, in [0, 2] (Brier 1950)."""
    p = np.asarray(probabilities, np.float64)
    picked = np.take_along_axis(p, labels[:, None], 1)[:, 0]
    return float(((p * p).sum(1) - 2 * picked + 1).mean())


def auroc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Chance that a positive scores above a negative, ties one half; NaN without both.

    By ranks (Mann & Whitney 1947).
    """
    positive = np.asarray(positive, bool)
    p, n = int(positive.sum()), int((~positive).sum())
    if not p or not n:
        return float("nan")
    return float((ranks(scores)[positive].sum() - p * (p + 1) / 2) / (p * n))


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Rank correlation, ties by their mean rank; NaN where one of them is constant."""
    x, y = (ranks(v) - (len(v) + 1) / 2 for v in (a, b))
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm else float("nan")


def ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """1 for the least, ..., n; equal values share their mean rank."""
    _, place, number = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(number)
    return (last - (number - 1) / 2)[place]
