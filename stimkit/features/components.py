"""Inner products and principal components of features that are too large for memory.

Of n rows X without their mean, the scores of the components are U √Λ of X Xᵀ = U Λ Uᵀ, which is n × n,
however many values a row has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 4_000_000  # values that are in memory at a time, as float64


def inner_products(rows: NDArray[np.float32], *, centred: bool = False) -> NDArray[np.float64]:
    """Inner products (n, n) of rows (n, values), by blocks; if `centred`, of their differences from their mean."""
    products = np.zeros((len(rows), len(rows)))
    step = max(1, BLOCK // len(rows))
    for start in range(0, rows.shape[1], step):
        block = np.asarray(rows[:, start : start + step], np.float64)
        if centred:
            block -= block.mean(0)
        products += block @ block.T
    return products


def principal_components(rows: NDArray[np.float32], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores (n, count) of rows (n, values), which may be on disk, and the part of the variance of each (count,).

    The sign of a component is that which makes its largest score positive.
    """
    products = inner_products(rows, centred=True)
    values, vectors = np.linalg.eigh(products)
    order = np.argsort(values)[::-1][:count]
    kept, whole = values[order].clip(0), float(values.clip(0).sum())
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(len(rows))])[order]
    return vectors[:, order] * np.sqrt(kept) * signs, kept / whole if whole else np.zeros(count)
