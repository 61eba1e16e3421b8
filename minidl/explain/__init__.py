"""What part of the image decided? Every method takes pictures (N,C,H,W) and returns an `Explanation`."""

from minidl.explain.explanation import Explanation
from minidl.explain.passes import predict
from minidl.explain.saliency import saliency

__all__ = ["Explanation", "predict", "saliency"]
