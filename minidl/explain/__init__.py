"""What a model looks at."""

from minidl.explain.saliency import logit_gradients

__all__ = ["logit_gradients"]
