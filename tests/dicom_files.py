"""DICOM slices for tests, written with pydicom."""

import numpy as np
import SimpleITK as sitk


def write_slice(
    path,
    pixels,
    position,
    *,
    orientation="1\\0\\0\\0\\1\\0",
    spacing=(0.8, 0.7),
    thickness="2.5",
    tilt="0",
    modality="CT",
    description="portal",
    uid="1.2.3",
):
    """Write one DICOM file of a (row, column) array: int16 in HU, with an intercept of -1024, or uint8 unchanged.

    The spacing is that of the tag: between rows, between columns. The modality is two letters.
    """
    pixels = np.asarray(pixels)
    tags = {
        "0008|0060": "CT",
        "0008|103e": description,
        "0018|0050": thickness,
        "0018|1120": tilt,
        "0020|000d": "1.2.3.0",
        "0020|000e": uid,
        "0020|0032": "\\".join(map(str, position)),
        "0020|0037": orientation,
    }
    if pixels.dtype == np.int16:
        tags |= {"0028|1052": "-1024", "0028|1053": "1"}
    image = sitk.GetImageFromArray(pixels[None])
    image.SetSpacing((spacing[1], spacing[0], 1.0))
    for tag, value in tags.items():
        if value is not None:
            image.SetMetaData(tag, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(path))
    writer.Execute(image)
    if modality != "CT":  # the writer makes other modalities a secondary capture, possibly without geometry
        patch(path, b"\x08\0\x60\0\x02\0\0\0CT", b"\x08\0\x60\0\x02\0\0\0" + modality.encode())


def patch(path, old, new):
    """Replace bytes of a file by others of the same length, for content that the writer refuses."""
    content = path.read_bytes()
    assert content.count(old) == 1 and len(old) == len(new)
    path.write_bytes(content.replace(old, new))
