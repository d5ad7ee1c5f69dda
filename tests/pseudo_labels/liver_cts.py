"""CTs of an ellipsoid body with a bright, ellipsoid liver."""

import nibabel as nib
import numpy as np

SHAPE, SPACING = (24, 48, 48), (8.0, 6.0, 6.0)
"""Numbers of slices, rows and columns, and their distances in mm."""


def ct_of(seed, centre=(12.0, 22.0, 14.0), liver=110):
    """Return a CT and its liver in axial order: 288 mm of body, a liver of about 1.4 l on the patient's right."""
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    hu = np.full(SHAPE, -1000.0)
    hu[((y - 23.5) / 17) ** 2 + ((x - 23.5) / 22) ** 2 < 1] = 20
    inside = sum(
        ((axis - middle) / radius) ** 2 for axis, middle, radius in zip((z, y, x), centre, (8, 11, 11), strict=True)
    )
    hu[inside < 1] = liver
    return (hu + random.normal(0, 5, SHAPE)).astype(np.int16), inside < 1


def to_file(path, axial, mirrored=False):
    """Write an array in axial order as NIfTI with axes towards the patient's left, back and head (LPS+)."""
    affine = np.diag([1.0 if mirrored else -1.0, -1.0, 1.0, 1.0]) @ np.diag([*SPACING[::-1], 1.0])
    nib.save(nib.Nifti1Image(np.ascontiguousarray(axial.transpose(2, 1, 0)), affine), path)
    return path
