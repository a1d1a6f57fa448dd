"""Fit a network to cases, and predict cases with it."""

from nacl.training.checkpoint import save_tensors
from nacl.training.device import DEVICES, resolve_device
from nacl.training.loop import fit
from nacl.training.prediction import predict, predict_logits
from nacl.training.step import ENGINES

__all__ = ["DEVICES", "ENGINES", "fit", "predict", "predict_logits", "resolve_device", "save_tensors"]
