"""How little must change before a model sees something else?

Every attack takes images (N,C,H,W) in bounds and returns an `AttackResult`; `linearity` shows why they succeed.

Sizes are in the units of the images: where these are in [0, 1], 8/255 is eight grey levels. A model that was trained on
(x - mean) / std is attacked through that, with `mean` and `std`.
"""

from minidl.attack.class_image import class_image
from minidl.attack.deepfool import deepfool
from minidl.attack.fgsm import fgsm
from minidl.attack.fool import fool
from minidl.attack.linearity import Linearity, linearity
from minidl.attack.pgd import pgd
from minidl.attack.result import AttackResult
from minidl.attack.universal import universal

__all__ = ["AttackResult", "Linearity", "class_image", "deepfool", "fgsm", "fool", "linearity", "pgd", "universal"]
