"""Which part each image goes to: groups whole, classes in proportion."""

from __future__ import annotations

import numpy as np

from minidl.array import Array


def partition(labels: Array, groups: Array, fractions: Array, rng: np.random.Generator) -> Array:
    """The part (N,) of each image, 0..P-1.

    Groups are placed one after the other, in random order, those of several classes first. With n[k] images of class k in the
    group, it goes to the part with the largest

        sum_k n[k] room[p,k],    room[p,k] = fractions[p] due[k] - has[p,k]

    where part p has[p,k] images so far. For groups of several classes, due[k] are those that are placed and those of the group,
    so that parts fill alike, whatever comes later. For those of one class, due[k] are all of it. The group goes to the part
    that lacks most, which lacks something: so no part ends up with more than its share and one group's images, nor with less,
    as what one part lacks others have in excess. As many groups as there are parts without their class are kept for these.

    labels: (N,) of 0.., and of -1 where a label is not known; of several heads (N,H), each of whose classes is a class k: so
    every image is of several, and every class of every head is in proportion. groups: (N,); fractions: (P,).
    """
    G, held = int(groups.max()) + 1, list[Array]()
    for of_head in labels.reshape(len(labels), -1).T:
        number = of_head - of_head.min()
        held.append(np.zeros((G, int(number.max()) + 1), np.int64))
        np.add.at(held[-1], (groups, number), 1)
    return _placed(np.concatenate(held, 1), fractions, rng)[groups]


def _placed(held: Array, fractions: Array, rng: np.random.Generator) -> Array:
    """The part (G,) of each group, which has held[g,k] images of class k."""
    (G, K), P = held.shape, len(fractions)
    total, placed, has = held.sum(0), np.zeros(K, np.int64), np.zeros((P, K), np.int64)
    without = np.ones((P, K), bool)  # parts to which no group of the class has gone
    left = (held > 0).sum(0)  # groups of each class that are not placed yet
    place = np.empty(G, np.int64)

    order = rng.permutation(G)
    several = (held[order] > 0).sum(1) > 1
    for g in np.concatenate([order[several], order[~several]]):
        n = held[g]
        mine = n > 0
        placed += n
        room = fractions[:, None] * (placed if mine.sum() > 1 else total) - has  # (P,K)
        needed = (without[:, mine] & (left[mine] <= without[:, mine].sum(0))).sum(1)
        # of those that need and lack the same, the part that lacks most in all
        p = np.lexsort((-room.sum(1), -(room @ n).round(9), -needed))[0]
        place[g] = p
        has[p] += n
        without[p, mine] = False
        left -= mine
    return place
