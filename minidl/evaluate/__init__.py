"""Do the maps tell the truth? Measures of maps (N,H,W) against masks (N,H,W) that say where the truth is, or against the model.

Against masks: `pointing_game`, `mass_in_mask`, `iou`. Against the model: `deletion`, `insertion`, `completeness`,
`randomization`. `metrics.bootstrap` tells how sure a mean is, and `baselines` holds maps that know nothing of the model,
to compare with.
"""

from minidl.evaluate import baselines
from minidl.evaluate.completeness import completeness
from minidl.evaluate.curves import Curve, deletion, insertion
from minidl.evaluate.mask_score import MaskScore
from minidl.evaluate.mass import mass_in_mask
from minidl.evaluate.overlap import iou
from minidl.evaluate.pointing import pointing_game
from minidl.evaluate.randomization import Randomization, randomization
from minidl.evaluate.similarity import rank_correlation, ssim

__all__ = [
    "Curve",
    "MaskScore",
    "Randomization",
    "baselines",
    "completeness",
    "deletion",
    "insertion",
    "iou",
    "mass_in_mask",
    "pointing_game",
    "randomization",
    "rank_correlation",
    "ssim",
]
