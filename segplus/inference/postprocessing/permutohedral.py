"""Gaussian sums over all points of a space of features, by way of the permutohedral lattice."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from segplus.errors import InputError

Values = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

_EXACT_SUMS = 64  # of points that are summed up one by one, to which the lattice's sums are scaled


@dataclass(frozen=True)
class Lattice:
    """The vertices around N points, and what a point's value means to each of them.

    Args:
        shares: Barycentric weights of a point in its simplex, sparse, shape (N, M); each row adds up to 1.
        neighbours: The vertex one step ahead and one step back along each direction, M where there is none, shape
            (d + 1, 2, M).
        scale: Factor of the sums.
    """

    shares: Any
    neighbours: Integers
    scale: float = 1.0

    def sum_values(self, values: Values) -> Values:
        """Return the sums over all points j of exp(-|f_i - f_j|^2 / 2) values_j, about; shape (N, C) like the values.

        Values are shared among the vertices, blurred along each direction by (1, 2, 1) / 2, and read where they were.
        """
        held = np.zeros((self.shares.shape[1] + 1, values.shape[1]), np.float32)  # the last row is no vertex's
        held[:-1] = self.shares.T @ values
        for ahead, back in self.neighbours:
            blurred = held[ahead]
            blurred += held[back]
            blurred *= 0.5
            held[:-1] += blurred
        summed: Values = self.shares @ held[:-1]
        summed *= np.float32(self.scale)
        return summed


def build_lattice(features: npt.NDArray[np.float64]) -> Lattice:
    """Return the lattice of points whose features have a standard deviation of 1, shape (N, d).

    Its sums are scaled so that those of some of the points, taken at even steps, are right on average.

    Raises:
        InputError: If the points lie so far apart that their vertices cannot be numbered.
    Reference:
        Adams, Baek and Davis, Fast high-dimensional filtering using the permutohedral lattice, 2010, section 3.
        https://doi.org/10.1111/j.1467-8659.2009.01645.x
    """
    nearest, rank, shares = _locate(features)
    codes, strides = _number_vertices(nearest, rank)
    vertices, places = np.unique(codes, return_inverse=True)
    count, corners = codes.shape
    rows = np.arange(0, count * corners + 1, corners)
    held = csr_array(
        (shares.astype(np.float32).ravel(), places.ravel(), rows), shape=(count, len(vertices)), dtype=np.float32
    )
    lattice = Lattice(held, _find_neighbours(vertices, strides))
    chosen = np.linspace(0, count - 1, min(count, _EXACT_SUMS)).astype(np.int64)
    exact = sum(float(np.exp(-0.5 * np.square(features - features[one]).sum(1)).sum()) for one in chosen)
    found = float(lattice.sum_values(np.ones((count, 1), np.float32))[chosen].sum())
    return replace(lattice, scale=exact / found)


def _locate(features: npt.NDArray[np.float64]) -> tuple[Integers, Integers, npt.NDArray[np.float64]]:
    """Return the vertex of remainder 0 of each point's simplex, the point's place around it, and its weights.

    Points lie in the plane of d + 1 coordinates whose sum is 0, where the lattice's own blur has a standard deviation
    of 1 in the features' unit.

    Returns:
        Each of shape (N, d + 1): coordinates, multiples of d + 1; 0 for the coordinate that exceeds the vertex's most,
        and so on; and weights of the simplex's vertices by their remainder.
    """
    dimensions = features.shape[1]
    corners, index = dimensions + 1, np.arange(1, dimensions + 1)
    scaled = features * (corners * math.sqrt(2 / 3) / np.sqrt(index * (index + 1)))
    lifted = np.zeros((len(features), corners))
    lifted[:, 1:] = -index * scaled
    lifted[:, :-1] += scaled[:, ::-1].cumsum(1)[:, ::-1]
    nearest = np.rint(lifted / corners).astype(np.int64)
    rank = (nearest * corners - lifted).argsort(1, kind="stable").argsort(1, kind="stable")
    rank += nearest.sum(1, keepdims=True)  # rounded up too often, or down
    turned = (rank < 0).astype(np.int64) - (rank > dimensions)
    nearest = (nearest + turned) * corners
    rank += turned * corners
    falling = np.empty_like(lifted)
    np.put_along_axis(falling, rank, (lifted - nearest) / corners, 1)
    shares = np.empty_like(lifted)
    shares[:, 1:] = (falling[:, :-1] - falling[:, 1:])[:, ::-1]
    shares[:, 0] = 1 - shares[:, 1:].sum(1)
    return nearest, rank, shares


def _number_vertices(nearest: Integers, rank: Integers) -> tuple[Integers, Integers]:
    """Return a number for each vertex of each point's simplex, (N, d + 1), and what a step of a coordinate adds to it.

    The first coordinate follows from the others.

    Raises:
        InputError: If 64 bits are too few.
    """
    corners = nearest.shape[1]
    dimensions, kept = corners - 1, nearest[:, 1:]
    low = kept.min(0) - 2 * corners  # of the vertices and their neighbours
    spans = [int(span) for span in kept.max(0) - low + 2 * corners + 1]
    if math.prod(spans) >= 2**63:
        raise InputError(
            "postprocess.crf: colours and places lie too many standard deviations apart for the permutohedral filter",
            found=f"{math.prod(spans):.1e} places of its lattice",
            fix="choose a larger color_sigma, color_distance_px or distance_px, or crf.filter: window",
        )
    strides = np.array([math.prod(spans[:index]) for index in range(dimensions)], np.int64)
    base = (kept - low) @ strides
    codes = [
        base + remainder * strides.sum() - corners * ((rank[:, 1:] > dimensions - remainder) @ strides)
        for remainder in range(corners)
    ]
    return np.stack(codes, 1), strides


def _find_neighbours(vertices: Integers, strides: Integers) -> Integers:
    """Return the positions of each vertex's neighbours among the sorted vertices; see `Lattice`."""
    count, corners = len(vertices), len(strides) + 1
    neighbours = np.full((corners, 2, count), count, np.int64)
    for direction, (ahead, back) in enumerate(neighbours):
        # A step adds 1 to every coordinate and takes d + 1 from one of them.
        wanted = vertices + strides.sum() - (corners * strides[direction - 1] if direction else 0)
        places = np.minimum(np.searchsorted(vertices, wanted), count - 1)
        found = np.flatnonzero(vertices[places] == wanted)
        ahead[found] = places[found]
        back[places[found]] = found
    return neighbours
