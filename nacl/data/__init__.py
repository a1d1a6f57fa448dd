"""Cases from the embedded phantom or from a folder of files, one shape for all."""

from nacl.data.case import SPLITS, Case, Dataset, resize_case, stack_slices
from nacl.data.load import dataset_fingerprint, dataset_name, load_dataset, resolve_data

__all__ = [
    "SPLITS",
    "Case",
    "Dataset",
    "dataset_fingerprint",
    "dataset_name",
    "load_dataset",
    "resize_case",
    "resolve_data",
    "stack_slices",
]
