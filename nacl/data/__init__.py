"""Cases from an embedded generator, a benchmark or a folder of one's own: one shape for all."""

from nacl.data.augment import Augmentation
from nacl.data.case import SPLITS, Case, Cases, Dataset
from nacl.data.load import dataset_fingerprint, dataset_name, load_dataset, resolve_data
from nacl.data.prepared.own_cases import prepare_cases
from nacl.data.slices import resize_case, stack_slices

__all__ = [
    "SPLITS",
    "Augmentation",
    "Case",
    "Cases",
    "Dataset",
    "dataset_fingerprint",
    "dataset_name",
    "load_dataset",
    "prepare_cases",
    "resize_case",
    "resolve_data",
    "stack_slices",
]
