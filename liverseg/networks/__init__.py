"""Networks on slabs, their weights with a record, and the transfer of weights from training to training."""

from liverseg.networks.base import Freezable, SlabNetwork
from liverseg.networks.imagenet import transfer_imagenet
from liverseg.networks.lesion_type_unet import LesionTypeUNet
from liverseg.networks.record import SlabInput, WeightsRecord, package_versions, tensors_hash
from liverseg.networks.region_type_unet import RegionTypeUNet
from liverseg.networks.registry import RecordedSettings, recorded_settings
from liverseg.networks.se_resunet import SIZES, NetworkSize, SEResUNet
from liverseg.networks.transfer import (
    TransferReport,
    average_weights,
    load_weights,
    record_differences,
    transfer_weights,
    without_aux_heads,
)
from liverseg.networks.weights import (
    export_trained,
    export_weights,
    read_record,
    read_weights,
    save_state,
)
from liverseg.networks.ynet import SlabClassifier, SlabOutput, YNet

__all__ = [
    "SIZES",
    "Freezable",
    "LesionTypeUNet",
    "NetworkSize",
    "RecordedSettings",
    "RegionTypeUNet",
    "SEResUNet",
    "SlabClassifier",
    "SlabInput",
    "SlabNetwork",
    "SlabOutput",
    "TransferReport",
    "WeightsRecord",
    "YNet",
    "average_weights",
    "export_trained",
    "export_weights",
    "load_weights",
    "package_versions",
    "read_record",
    "read_weights",
    "record_differences",
    "recorded_settings",
    "save_state",
    "tensors_hash",
    "transfer_imagenet",
    "transfer_weights",
    "without_aux_heads",
]
