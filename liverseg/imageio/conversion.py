"""Convert images of SimpleITK, nibabel and MONAI to a `Volume`, and label maps back.

SimpleITK's physical space is LPS in mm, and its arrays are indexed (z, y, x). nibabel and `Volume` use RAS+ mm and
(x, y, z). A MetaTensor uses RAS+ too, unless its `meta["space"]` says LPS.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import nibabel as nib
import numpy as np

from liverseg.errors import GeometryError, NotCTError
from liverseg.imageio.grid import inspect_header, with_affine
from liverseg.imageio.nifti import StoredVoxels, describe_not_finite, label_header
from liverseg.imageio.volume import Volume

if TYPE_CHECKING:
    import SimpleITK
    from monai.data import MetaTensor

__all__ = [
    "Image",
    "describe_volume",
    "geometry_warnings",
    "is_image",
    "to_metatensor",
    "to_nibabel",
    "to_sitk",
    "to_volume",
]

Image: TypeAlias = Union["Volume", "SimpleITK.Image", "nib.spatialimages.SpatialImage", "MetaTensor"]
"""An image in memory that `to_volume` takes."""

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From LPS to RAS and back."""
_KINDS = "a liverseg.Volume, a SimpleITK or nibabel image or a MONAI MetaTensor"


def is_image(value: Any) -> bool:
    """Return whether a value is an image of a type that `to_volume` takes."""
    return isinstance(value, Volume | nib.spatialimages.SpatialImage) or _is_sitk(value) or _is_metatensor(value)


def to_volume(image: Image, name: str = "ct") -> Volume:
    """Return an image as a checked volume, neither resampled nor reoriented.

    Args:
        image: 3-D; a MetaTensor may have a channel axis of length one in front, a nibabel image axes of length one at
            its end.
        name: of the argument, for messages.

    Returns:
        The volume, in native byte order, integers as they are and other numbers as float32. Its `path` describes it in
        messages.

    Raises:
        TypeError: if it is not an image, or its voxels are not single numbers.
        GeometryError: if it is not 3-D, or its affine cannot place voxels in mm.
        LiversegError: if it is empty, or holds NaN or infinite voxels.

    Example:
        >>> volume = to_volume(Volume(np.zeros((4, 5, 6), np.int16), np.diag([2.0, 2.0, 3.0, 1.0])))
        >>> volume.spacing
        (2.0, 2.0, 3.0)
    """
    affine: Any
    header: Any = None
    described = Path(f"{name} ({type(image).__module__.partition('.')[0]} {type(image).__name__} in memory)")
    if isinstance(image, Volume):
        array, affine, header = np.asarray(image.array), image.affine, image.header
    elif isinstance(image, nib.spatialimages.SpatialImage):
        array, affine, header = _nibabel_array(image), image.affine, image.header
    elif _is_sitk(image):
        array, affine = _sitk_array(image, described), _sitk_affine(image)
    elif _is_metatensor(image):
        array, affine = _metatensor_array(image), _metatensor_affine(image)
    else:
        raise TypeError(_wrong_type(image, name))
    return _checked(array, affine, header, described)


def geometry_warnings(image: Any, name: str = "ct") -> list[str]:
    """Return a warning for an image whose geometry is only its library's default: voxels of 1 mm, the first at 0.

    A MetaTensor or SimpleITK image that was read from a file has the file's geometry and gives no warning.

    Args:
        image: an image that `to_volume` takes.
        name: of the argument, for messages.

    Example:
        >>> import SimpleITK
        >>> geometry_warnings(SimpleITK.Image([4, 5, 6], SimpleITK.sitkInt16))[0].partition(":")[0]
        "ct has SimpleITK's default spacing, origin and direction"
    """
    affine: Any
    if _is_metatensor(image) and "original_affine" not in image.meta:
        default, affine, default_affine = "MONAI's default affine", _metatensor_affine(image), np.eye(4)
    elif _is_sitk(image) and not image.GetMetaDataKeys():
        default, affine, default_affine = "SimpleITK's default spacing, origin and direction", _sitk_affine(image), _LPS
    else:
        return []
    if not np.array_equal(affine, default_affine):
        return []
    return [f"{name} has {default}: voxels of 1 mm are assumed, and left, right, head and feet are a guess"]


def _checked(array: np.ndarray, affine: Any, header: Any, described: Path) -> Volume:
    array = array.astype(np.uint8) if array.dtype == bool else array
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{described}: voxels of type {array.dtype}; integers or floating-point numbers are needed")
    if array.ndim != 3:
        shape = " × ".join(map(str, array.shape))
        raise GeometryError(
            f"{described}: {array.ndim} dimensions, shape {shape}; 3 are needed: "
            + ("give one phase and channel" if array.ndim > 3 else "give a single slice an axis of length 1")
        )
    if affine is None or np.shape(affine) != (4, 4):
        raise GeometryError(f"{described}: no 4 × 4 affine; give the voxel size and position in mm")
    affine = np.asarray(affine, np.float64)
    native = np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("=")  # as `read_volume` does
    array = array.astype(native, copy=False)
    own = _header(array, affine, header)
    straight = inspect_header(own).grid(described).affine
    if not np.array_equal(straight, own.get_best_affine()):  # its axes deviated from right angles by rounding
        affine, own = straight, with_affine(own, straight)
    if not isinstance(header, nib.Nifti1Header):
        own.set_qform(affine, 1)  # which fails for an affine that cannot place voxels
    if defect := describe_not_finite(array):
        raise NotCTError(f"{described}: {defect}")
    return Volume(array, affine, own, described)


def _header(array: np.ndarray, affine: np.ndarray, header: Any) -> nib.Nifti1Header:
    """Return a NIfTI header for an image: its own one if it is NIfTI, with this shape and affine."""
    if isinstance(header, nib.Nifti1Header):
        own = header.copy()
        stored = inspect_header(own).affine
        if stored is None or not np.allclose(stored, affine, rtol=1e-6, atol=1e-4):
            own.set_sform(affine, 1)
        return own
    own = nib.Nifti1Header()
    own.set_data_dtype(array.dtype)
    own.set_data_shape(array.shape)
    own.set_xyzt_units("mm")
    own.set_sform(affine, 1)
    return own


def _nibabel_array(image: Any) -> np.ndarray:
    data = image.dataobj
    if isinstance(data, nib.arrayproxy.ArrayProxy) and isinstance(image.header, nib.Nifti1Header):
        # scaled as `read_volume` does, so that the image and its file give the same voxels
        header = image.header.copy()
        header.set_slope_inter(data.slope, data.inter)
        stored = np.asarray(data.get_unscaled())
        array = StoredVoxels(header, (), stored.reshape(-1, order="F")).scaled().reshape(stored.shape, order="F")
    else:
        array = np.asarray(data)
    shape: list[int] = list(array.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    return array.reshape(shape)


def _sitk_array(image: Any, described: Path) -> np.ndarray:
    import SimpleITK

    if image.GetNumberOfComponentsPerPixel() != 1:
        raise TypeError(f"{described}: {image.GetNumberOfComponentsPerPixel()} numbers a voxel; one is needed")
    return SimpleITK.GetArrayFromImage(image).T


def _sitk_affine(image: Any) -> np.ndarray | None:
    if image.GetDimension() != 3:
        return None
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return _LPS @ affine


def _metatensor_array(image: Any) -> np.ndarray:
    import torch

    tensor = image.as_tensor().detach().cpu()
    array = (tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor).numpy()
    return array[0] if array.ndim == 4 and array.shape[0] == 1 else array


def _metatensor_affine(image: Any) -> np.ndarray:
    affine = np.asarray(image.affine.detach().cpu(), np.float64)
    lps = str(image.meta.get("space", "RAS")).rpartition(".")[2] == "LPS"
    return _LPS @ affine if lps and affine.shape == (4, 4) else affine


def _is_sitk(value: Any) -> bool:
    if not type(value).__module__.startswith("SimpleITK"):
        return False
    import SimpleITK

    return isinstance(value, SimpleITK.Image)


def _is_metatensor(value: Any) -> bool:
    if not type(value).__module__.startswith("monai"):
        return False
    from monai.data import MetaTensor

    return isinstance(value, MetaTensor)


def _wrong_type(value: Any, name: str) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if hasattr(value, "shape"):
        return f"{name} is of type {kind}, which has no affine; give liverseg.Volume({name}, affine)"
    return f"{name} is of type {kind}; a path, {_KINDS} is needed"


def describe_volume(volume: Volume) -> dict[str, Any]:
    """Return the description of an image in memory for a case's record.

    Returns:
        `path`, which names the kind of image and the start of the hash; `sha256` of data type, shape, affine and
        voxels; `bytes` of its voxels.
    """
    digest = hashlib.sha256()
    digest.update(f"{volume.array.dtype.str} {volume.array.shape} {volume.affine.tolist()}".encode())
    for plane in np.moveaxis(volume.array, 2, 0):
        digest.update(np.ascontiguousarray(plane.T).data)
    sha256 = digest.hexdigest()
    return {"path": f"{volume.path}, SHA-256 {sha256[:12]}", "sha256": sha256, "bytes": volume.array.nbytes}


def to_nibabel(array: np.ndarray, like: Volume) -> nib.Nifti1Image:
    """Return a label map as a NIfTI image, with the affine, codes and units of a volume.

    Args:
        array: integers, shape of the volume.
        like: the volume.
    """
    return nib.Nifti1Image(array, like.affine, label_header(like.header, array.dtype))


def to_sitk(array: np.ndarray, affine: np.ndarray) -> SimpleITK.Image:
    """Return a label map as a SimpleITK image.

    Args:
        array: integers, shape (I, J, K).
        affine: 4×4, voxel index to RAS+ mm.
    """
    import SimpleITK

    lps = _LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def to_metatensor(array: np.ndarray, affine: np.ndarray) -> MetaTensor:
    """Return a label map as a MetaTensor of shape (1, I, J, K), with its channel axis in front.

    Args:
        array: integers, shape (I, J, K).
        affine: 4×4, voxel index to RAS+ mm.
    """
    import torch
    from monai.data import MetaTensor

    tensor = torch.from_numpy(np.ascontiguousarray(array)[None])
    return MetaTensor(tensor, affine=torch.as_tensor(affine, dtype=torch.float64), meta={"space": "RAS"})
