"""What explaining, attacking, measuring and training share: a model that is asked, batch by batch."""

from minidl.inference.passes import predict

__all__ = [
    "predict",
]
