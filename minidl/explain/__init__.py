"""What part of the image decided? Every method takes images (N,C,H,W) and returns an `Explanation`."""

from minidl.explain.evidence import Head, evidence_maps
from minidl.explain.expected_gradients import expected_gradients
from minidl.explain.explanation import Explanation
from minidl.explain.extremal import extremal_perturbation, keep
from minidl.explain.grad_cam import grad_cam
from minidl.explain.grad_times_input import grad_times_input
from minidl.explain.guided import deconvnet, guided_backprop
from minidl.explain.integrated_gradients import integrated_gradients
from minidl.explain.meaningful import delete, meaningful_perturbation
from minidl.explain.occlusion import occlusion
from minidl.explain.rise import rise
from minidl.explain.saliency import saliency
from minidl.explain.smoothgrad import smoothgrad
from minidl.explain.vargrad import vargrad

__all__ = [
    "Explanation",
    "Head",
    "deconvnet",
    "delete",
    "evidence_maps",
    "expected_gradients",
    "extremal_perturbation",
    "grad_cam",
    "grad_times_input",
    "guided_backprop",
    "integrated_gradients",
    "keep",
    "meaningful_perturbation",
    "occlusion",
    "rise",
    "saliency",
    "smoothgrad",
    "vargrad",
]
