"""What every op does, in words for someone who sees a backward pass for the first time: a name, the way there, the way back."""

from __future__ import annotations

from typing import NamedTuple


class Words(NamedTuple):
    """name: for the list. there, back: a sentence or two each."""

    name: str
    there: str
    back: str


WORDS = {
    "Conv2d": Words(
        "convolution",
        "A small window slides over its input. At every place it multiplies what it sees by its weights and adds up.",
        "An input cell was seen from several places, each time through another weight. Its gradient adds up what those places "
        "ask for, each times that weight: the same window, with the kernel turned around.",
    ),
    "BatchNormFrozen": Words(
        "batch norm",
        "Every channel is stretched and shifted by fixed numbers that training has found.",
        "The shift changes nothing on the way back. The stretch does: each gradient is multiplied by the scale of its channel.",
    ),
    "BatchNorm": Words(
        "batch norm, training",
        "Every channel is shifted and stretched to mean 0 and spread 1, by what this batch says.",
        "All values of a channel share their mean and spread, so that each gradient depends on all the others too. No straight "
        "line describes this step.",
    ),
    "ReLU": Words(
        "relu",
        "Positive values pass, negative ones become 0.",
        "Where the value passed, the gate is open and the gradient goes through unchanged. Where it was cut to 0, a small "
        "change would be cut to 0 too: the gate is closed and nothing gets through.",
    ),
    "LeakyReLU": Words(
        "leaky relu",
        "Positive values pass, negative ones become small.",
        "Where the value passed, the gradient passes. Elsewhere a small part of it does.",
    ),
    "Add": Words(
        "join: add",
        "Two ways come together, and their values are added.",
        "Each way counts fully in the sum, so both receive the whole gradient. This is why residual nets learn well: the "
        "shortcut carries it past the convolutions undiminished.",
    ),
    "Concat": Words(
        "join: stack",
        "The channels of several ways are stacked behind each other.",
        "Every way takes back the gradient of its own channels. Nothing is mixed.",
    ),
    "MaxPool2d": Words(
        "max pooling",
        "Of every window only the largest value goes on.",
        "Only the winner of a window had a say, so only the winner gets the gradient. All other cells get 0.",
    ),
    "AvgPool2d": Words(
        "average pooling",
        "Every window is replaced by its mean.",
        "All cells of a window had the same say, and share its gradient evenly.",
    ),
    "GlobalAvgPool2d": Words(
        "mean over the picture",
        "Every channel becomes one number, its mean over all places. From here on nothing knows where.",
        "Every place had the same say, and receives the same small part of the gradient: the way back begins with no idea "
        "where, and only the gates further down bring that back.",
    ),
    "RowsAndColumns": Words(
        "resize",
        "Rows and columns are averaged or interpolated to another size.",
        "Every cell takes back as much of the gradient as it gave.",
    ),
    "Linear": Words(
        "linear layer",
        "Every output adds up all inputs, each times a weight of its own.",
        "An input takes back the gradient of every output, each times the weight between the two.",
    ),
    "GetItem": Words(
        "pick",
        "Some of the values are taken, the others are left behind.",
        "Those that were taken receive the gradient, the others 0: they had no say.",
    ),
    "Pad": Words(
        "border",
        "Values are put around, here mostly channels of zeros, to make shapes fit.",
        "The border is fixed, and its part of the gradient falls away.",
    ),
    "Reshape": Words(
        "reshape",
        "The same numbers in another order of rows and columns. Nothing is computed.",
        "The same gradients, put back into the old shape.",
    ),
    "Mul": Words(
        "multiply",
        "Two values are multiplied.",
        "Each receives the gradient times the other.",
    ),
    "Div": Words(
        "divide",
        "One value is divided by another.",
        "What stands above gets the gradient divided by what stands below, which itself gets a part of the other sign.",
    ),
    "Pow": Words(
        "power",
        "Every value is raised to a fixed power.",
        "The gradient is multiplied by the slope of that curve at the value.",
    ),
    "Sigmoid": Words(
        "sigmoid",
        "Every value is squeezed into the range from 0 to 1.",
        "The gradient is multiplied by the slope of the curve, which is close to 0 at both ends: there it saturates, and "
        "hardly anything comes back.",
    ),
    "Tanh": Words(
        "tanh",
        "Every value is squeezed into the range from -1 to 1.",
        "The gradient is multiplied by the slope of the curve, which is close to 0 at both ends.",
    ),
    "Softmax": Words(
        "softmax",
        "Scores become probabilities that add up to 1.",
        "To raise one probability is to lower the others, so every score hears from all of them.",
    ),
}


def words(op: str) -> Words:
    """Those of an op by the name of its class; of one without its own, what holds for all."""
    return WORDS.get(op) or Words(
        op,
        "A step of the computation.",
        "Every input takes back the gradient of each output times how much that output changes with it.",
    )
