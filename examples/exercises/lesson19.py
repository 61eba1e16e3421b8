"""Exercise 19: the pointing game. `python -m pytest examples/exercises -k lesson19` judges it."""

import numpy as np


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """The share of images whose map is highest inside the mask, and what a map that knows nothing gets: chance.

    maps: (N,H,W); masks: (N,H,W) of bool. Where several pixels are highest, the share of them inside counts for the image.
    """
    raise NotImplementedError(
        "write pointing_game in examples/exercises/lesson19.py: where is each map highest, and is it inside?"
    )


# Hint 1: the highest pixels of each map: maps == maps.max(axis=(1, 2), keepdims=True), again (N,H,W).
#
# Hint 2: of each image, how many of them are in the mask, divided by how many there are. Then the mean over the images.
#
# Hint 3: a pixel that is drawn blindly is in the mask with the probability of the mask's area: masks.mean().
