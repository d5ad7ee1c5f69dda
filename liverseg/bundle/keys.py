"""Groups of config keys that do not change results, for all that compares settings."""

from __future__ import annotations

__all__ = ["DICOM_INPUT", "DURATION", "EXECUTION", "FILES", "FOLDERS", "MULTI_PROCESS", "STEPS", "TEXTS", "TRACKING"]

STEPS = ("_meta_", "imports", "initialize", "training", "run", "finalize", "settings")
"""The order of a run, and the settings themselves."""

FOLDERS = ("bundle_root", "ckpt_dir", "output_dir", "dataset_dir", "cache_dir")

FILES = ("datalist", "pretrain_weights", "imagenet_weights")
"""Files that a training reads. They count by their content, wherever they are."""

TEXTS = (*FOLDERS, *FILES, "weights", "series", "liver", "tracking_uri", "experiment_name", "run_name")
"""Paths and names, which are texts even if they look like numbers, such as a folder called 20240105."""

EXECUTION = (
    *("device", "torch_device", "num_workers", "prefetch", "ahead", "val_batch_size", "resume"),
    *("progress", "statistics"),
)
"""Device, speed and display, which change the rounding of results at most."""

DURATION = ("epochs", "train::trainer::max_epochs", "patience", "val_interval")
"""How long a training takes and how often it is validated. A resumed training may change it."""

DICOM_INPUT = ("series", "study", "untilt", "dicom", "keep_identifiers")
"""How a DICOM study is read, and its DICOM results: for a NIfTI file they change nothing. `phase` is not among them,
since a NIfTI file gets a warning that its phase was not checked."""

TRACKING = (
    *("train::handlers", "validate::handlers"),
    *("tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0"),
)
"""Handlers, whose settings are keys of their own, and keys that MONAI adds for experiment tracking."""

MULTI_PROCESS = (
    *("batch_sampler", "wait_minutes", "train::dataloader", "train::trainer::network", "train::trainer::loss_function"),
    *("train::prepare_batch::noise", "validate::dataloader", "train::dataset::progress", "validate::dataset::progress"),
)
"""Keys that `multi_gpu_train.yaml` replaces. Several processes learn what one learns."""
