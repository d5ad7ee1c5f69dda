"""Reference for timing: nnU-Net v2's 2-D predictor with its defaults on the benchmark's CT. See inference_speed.py.

    NNUNET_VENV/bin/python benchmarks/nnunet_inference.py FOLDER [--no-mirroring]

The plans are those of nnU-Net's planner for slices of 512 x 512 with this spacing. The network is untrained, since its
speed does not depend on the weights.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import torch

CHANNELS = [32, 64, 128, 256, 512, 512, 512, 512]


def plans() -> dict:
    """Return the plans that nnUNetv2_plan_experiment writes for the 2-D configuration of a data set of such slices."""
    stages = len(CHANNELS)
    return {
        "dataset_name": "Dataset001_Liver",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.5, 0.75, 0.75],
        "original_median_shape_after_transp": [200, 512, 512],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 100.0, "std": 40.0, "percentile_00_5": -20.0, "percentile_99_5": 200.0,
                  "min": -1000.0, "max": 1000.0, "median": 100.0}
        },
        "configurations": {
            "2d": {
                "data_identifier": "nnUNetPlans_2d",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 12,
                "patch_size": [512, 512],
                "median_image_size_in_voxels": [512.0, 512.0],
                "spacing": [0.75, 0.75],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
                "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": {
                    "is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None
                },
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": stages,
                        "features_per_stage": CHANNELS,
                        "conv_op": "torch.nn.modules.conv.Conv2d",
                        "kernel_sizes": [[3, 3]] * stages,
                        "strides": [[1, 1]] + [[2, 2]] * (stages - 1),
                        "n_conv_per_stage": [2] * stages,
                        "n_conv_per_stage_decoder": [2] * (stages - 1),
                        "conv_bias": True,
                        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
                        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": True,
            }
        },
    }  # fmt: skip


def model_folder(folder: Path) -> Path:
    """Return a model folder with untrained weights, creating it if needed."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    model = folder / "nnunet_model"
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    if not checkpoint.is_file():
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        labels = {"background": 0, "liver": 1, "lesion": 2}
        dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
        (model / "dataset.json").write_text(json.dumps(dataset))
        (model / "plans.json").write_text(json.dumps(plans()))
        network = plans()["configurations"]["2d"]["architecture"]
        built = get_network_from_plans(
            network["network_class_name"], network["arch_kwargs"], network["_kw_requires_import"], 1, 3,
            deep_supervision=False,
        )  # fmt: skip
        content = {
            "network_weights": built.state_dict(),
            "init_args": {"configuration": "2d"},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1),
        }
        torch.save(content, checkpoint)
    return model


def main() -> None:
    """Predict the labels of the CT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--no-mirroring", action="store_true")
    args = parser.parse_args()
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[variable] = str(args.folder / "nnunet")
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    source, target = args.folder / "nnunet_in", args.folder / "nnunet_out"
    source.mkdir(exist_ok=True)
    if not (source / "ct_0000.nii.gz").exists():
        os.link(args.folder / "ct.nii.gz", source / "ct_0000.nii.gz")
    shutil.rmtree(target, ignore_errors=True)
    predictor = nnUNetPredictor(
        use_mirroring=not args.no_mirroring, device=torch.device("cpu"), perform_everything_on_device=False
    )
    predictor.initialize_from_trained_model_folder(str(model_folder(args.folder)), (0,), "checkpoint_final.pth")
    predictor.predict_from_files(str(source), str(target))


if __name__ == "__main__":
    main()
