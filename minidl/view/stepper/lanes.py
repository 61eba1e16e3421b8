"""Where the wires of a graph run when its nodes stand below each other, one a row: as histories of branches are drawn."""

from __future__ import annotations

from collections.abc import Sequence


def lanes(sources: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]], int]:
    """For each row the rows further down that it is wired to -> the lane of each node, that of each wire, and how many lanes.

    A node stands in the leftmost of the lanes that come down to it, and its first wire goes on in that lane. A further wire
    joins a lane that leads where it wants to go, or takes the leftmost free one.
    """
    waiting: list[int | None] = []  # of each lane the row that it leads to
    node_lanes, wire_lanes, width = [], [], 0
    for row, wired in enumerate(sources):
        own = waiting.index(row) if row in waiting else _free(waiting)
        waiting = [None if to == row else to for to in waiting]
        found = []
        for to in wired:
            if own >= len(waiting) or waiting[own] is None:
                lane = own
            else:
                lane = waiting.index(to) if to in waiting else _free(waiting)
            waiting += [None] * (lane + 1 - len(waiting))
            waiting[lane] = to
            found.append(lane)
        node_lanes.append(own)
        wire_lanes.append(found)
        width = max(width, own + 1, *(lane + 1 for lane in found))
    return node_lanes, wire_lanes, width


def _free(waiting: Sequence[int | None]) -> int:
    """The leftmost lane that leads nowhere."""
    return next((i for i, to in enumerate(waiting) if to is None), len(waiting))
