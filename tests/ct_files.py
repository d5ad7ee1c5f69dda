"""Small CTs as NIfTI files and DICOM studies."""

import nibabel as nib
import numpy as np
from dicom_files import write_slice

from liverseg.imageio.boxes import full_box
from liverseg.imageio.volume import write_box_like


def hu(seed, shape=(32, 40, 4)):
    """Return random HU."""
    return np.random.default_rng(seed).integers(-1000, 1000, shape, np.int16)


def write_ct(path, seed=0, shape=(32, 40, 4)):
    """Write a NIfTI file, and its folder if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(hu(seed, shape), np.diag([-2.0, -2.0, 4.0, 1.0])), path)
    return path


def write_study(folder, seed=0, slices=4, tilt_degrees=0.0, **tags):
    """Write one series, with a file per slice; a tilted gantry shifts each slice against the one below."""
    back = 2.5 * np.tan(np.radians(tilt_degrees))
    for number in range(slices):
        position = (0, round(back * number, 4), 2.5 * number)
        write_slice(folder / f"{number}.dcm", hu(seed, (40, 32, slices))[:, :, number], position, **tags)
    return folder


def write_on_grid(path, array, volume):
    """Write an array in the axis order of a volume's file as NIfTI on its grid."""
    axial = volume.to_axial(array)
    write_box_like(path, axial, full_box(axial.shape), volume)
