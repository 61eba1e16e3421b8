"""Do the maps tell the truth? Measures of maps (N,H,W) against masks (N,H,W) that say where the truth is, or against the model.

Against masks: `pointing_game`, `mass_in_mask`, `iou`. Against the model: `deletion`, `insertion`, `road`, `completeness`,
`infidelity`, `max_sensitivity`, `randomization`. Of maps alone: `complexity`, `sparseness`. `metrics.bootstrap` tells how sure
a mean is, and `baselines` holds maps that know nothing of the model, to compare with.
"""

from minidl.evaluate import baselines
from minidl.evaluate.completeness import completeness
from minidl.evaluate.complexity import complexity, sparseness
from minidl.evaluate.curves import Curve, deletion, insertion
from minidl.evaluate.infidelity import infidelity
from minidl.evaluate.mask_score import MaskScore
from minidl.evaluate.mass import mass_in_mask
from minidl.evaluate.max_sensitivity import max_sensitivity
from minidl.evaluate.overlap import iou
from minidl.evaluate.pointing import pointing_game
from minidl.evaluate.randomization import Randomization, randomization
from minidl.evaluate.road import road
from minidl.evaluate.similarity import rank_correlation, ssim

__all__ = [
    "Curve",
    "MaskScore",
    "Randomization",
    "baselines",
    "completeness",
    "complexity",
    "deletion",
    "infidelity",
    "insertion",
    "iou",
    "mass_in_mask",
    "max_sensitivity",
    "pointing_game",
    "randomization",
    "rank_correlation",
    "road",
    "sparseness",
    "ssim",
]
