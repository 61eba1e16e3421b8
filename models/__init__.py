"""The networks, each family in a file of its own."""

from models.resnet import (
    plain20,
    plain32,
    plain44,
    plain56,
    plain110,
    resnet8,
    resnet20,
    resnet32,
    resnet44,
    resnet56,
    resnet110,
)

__all__ = [
    "plain20",
    "plain32",
    "plain44",
    "plain56",
    "plain110",
    "resnet8",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
]
