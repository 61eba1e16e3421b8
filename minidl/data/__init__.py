"""Datasets in their published formats, augmentation, and the loader that feeds training."""

from .augment import Augmentation, Compose, Cutout, Normalize, RandomCrop, RandomFlip
from .cifar import cifar10, cifar100
from .dataset import Dataset
from .folder import image_folder
from .lesions import lesions
from .loader import Loader

__all__ = [
    "Augmentation",
    "Compose",
    "Cutout",
    "Dataset",
    "Loader",
    "Normalize",
    "RandomCrop",
    "RandomFlip",
    "cifar10",
    "cifar100",
    "image_folder",
    "lesions",
]
