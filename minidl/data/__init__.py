"""Datasets in their published formats, augmentation, and the loader that feeds training."""

from minidl.data.augment import Augmentation, Compose, Cutout, Normalize, RandomCrop, RandomFlip
from minidl.data.cifar import cifar10, cifar100
from minidl.data.dataset import Dataset
from minidl.data.decoding import UnreadableError
from minidl.data.disjoint import check_disjoint
from minidl.data.folder import image_folder
from minidl.data.ham10000 import ham10000
from minidl.data.lazy import LazyImages
from minidl.data.lesions import lesions
from minidl.data.loader import Loader
from minidl.data.medmnist import medmnist
from minidl.data.reading import load_image, read_image
from minidl.data.spots import spots
from minidl.data.table import csv
from minidl.data.warp import ColorJitter, RandomRotation, RandomZoom

__all__ = [
    "Augmentation",
    "ColorJitter",
    "Compose",
    "Cutout",
    "Dataset",
    "LazyImages",
    "Loader",
    "Normalize",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomZoom",
    "UnreadableError",
    "check_disjoint",
    "cifar10",
    "cifar100",
    "csv",
    "ham10000",
    "image_folder",
    "lesions",
    "load_image",
    "medmnist",
    "read_image",
    "spots",
]
