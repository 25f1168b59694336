"""Latin squares: orders of conditions that are balanced over participants."""

from __future__ import annotations

Square = tuple[tuple[int, ...], ...]


def latin(n: int) -> Square:
    """The cyclic Latin square: n orders in which each condition stands once at each place."""
    return tuple(tuple((row + column) % n for column in range(n)) for row in range(n))


def williams(n: int) -> Square:
    """The design of Williams (1949): a Latin square in which each condition follows each other one equally often.

    n orders where n is even, 2 n (the square and its mirror image) where it is odd: then each condition stands twice
    at each place and follows each other one twice.

    Source: Williams, E. J. (1949). Experimental designs balanced for the estimation of residual effects of treatments.
    Australian Journal of Scientific Research A, 2, 149-168.
    """
    first = [0]
    low, high = 1, n - 1
    while len(first) < n:
        first.append(low if len(first) % 2 else high)
        low, high = (low + 1, high) if len(first) % 2 == 0 else (low, high - 1)
    rows = tuple(tuple((one + row) % n for one in first) for row in range(n))
    return rows if n % 2 == 0 or n == 1 else rows + tuple(row[::-1] for row in rows)
