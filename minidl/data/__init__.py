"""Datasets in their published formats, augmentation, and the loader that feeds training."""

from minidl.data.augment import Augmentation, Compose, Cutout, Normalize, RandomCrop, RandomFlip
from minidl.data.cifar import cifar10, cifar100
from minidl.data.dataset import Dataset
from minidl.data.folder import image_folder, read_image
from minidl.data.ham10000 import ham10000
from minidl.data.lesions import lesions
from minidl.data.loader import Loader

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
    "ham10000",
    "image_folder",
    "lesions",
    "read_image",
]
