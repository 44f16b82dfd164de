"""The heads that the product fits, found faster: for experiments that fit thousands of them.

The optimum of a penalised logistic regression lies in the span of the pictures that it learns from,
so products of pictures suffice, and these are the same for every fit. Of each picture only the
tagging view counts, and inputs are standardised over all pictures instead of the learned ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.linalg import cho_factor, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit

from shoetagger.learning.training.examples import positive_weight

_EPS = 1e-5  # of the product's standardisation
_RIDGE = 1e-6  # so that two equal pictures do no harm
_STEPS, _HISTORY = 100, 10  # as the product's


def products(blocks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the products (N, N) of pictures as a head sees them: blocks (N, width) count alike."""
    total = 0.0
    for block in blocks.values():
        x = block.astype(np.float64)
        x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + _EPS)
        total = total + x @ x.T / x.shape[1]
    return np.asarray(total)


def fit_and_score(
    products: np.ndarray,
    truth: np.ndarray,
    learned: np.ndarray,
    held: np.ndarray,
    *,
    l2: float,
    most: float,
) -> np.ndarray:
    """Fit one regression per tag to some rows; return the scores (held, tags) of others.

    `truth` (learned, tags) is 0/1; `l2` is `train.head_l2` and `most` `train.positive_weight`.
    """
    count, tags = truth.shape
    factor, _ = cho_factor(products[np.ix_(learned, learned)] + _RIDGE * np.eye(count), lower=True)
    x = np.tril(factor)  # (learned, learned): the pictures in coordinates of their own span
    new = solve_triangular(x, products[np.ix_(learned, held)], lower=True).T
    weight = positive_weight(truth, most).numpy().astype(np.float64)
    target = truth.astype(np.float64)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients, bias = flat[:-tags].reshape(count, tags), flat[-tags:]
        logits = x @ coefficients + bias
        # The cross-entropy of a positive counts `weight` times.
        losses = weight * target * np.logaddexp(0, -logits) + (1 - target) * np.logaddexp(0, logits)
        slope = ((1 - target) * expit(logits) - weight * target * expit(-logits)) / count
        gradient = x.T @ slope + 2 * l2 * coefficients
        total = losses.sum() / count + l2 * np.square(coefficients).sum()
        return total, np.concatenate([gradient.ravel(), slope.sum(axis=0)])

    frequency = np.clip(target.mean(axis=0), 1 / (count + 1), count / (count + 1))
    start = np.concatenate([np.zeros(count * tags), np.log(frequency / (1 - frequency))])
    options = {"maxiter": _STEPS, "maxcor": _HISTORY}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    scores: np.ndarray = expit(new @ found[:-tags].reshape(count, tags) + found[-tags:])
    return scores
