"""Labelled volumes as slabs for training: cached on disk, drawn in a reproducible order."""

from liverseg.datasets.slabs import SlabDataset, SlabSampler
from liverseg.datasets.store import StoredVolume, VolumeStore, check_pair

__all__ = ["SlabDataset", "SlabSampler", "StoredVolume", "VolumeStore", "check_pair"]
