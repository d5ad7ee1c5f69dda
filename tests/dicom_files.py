"""DICOM slices for tests, written with pydicom."""

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_rescale
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    generate_uid,
)


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
    compressor=None,
):
    """Write one DICOM file of a (row, column) array: int16 in HU, with an intercept of -1024, or uint8 unchanged.

    The spacing is that of the tag: between rows, between columns. The modality is two letters. The compressor is one of
    ITK's: JPEG, which is lossless, or JPEG2000.
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
    if compressor:
        writer.SetUseCompression(True)
        writer.SetCompressor(compressor)
    writer.Execute(image)
    if modality != "CT":  # the writer makes other modalities a secondary capture, possibly without geometry
        patch(path, b"\x08\0\x60\0\x02\0\0\0CT", b"\x08\0\x60\0\x02\0\0\0" + modality.encode())


def compress(path, syntax):
    """Compress the pixels of a file, HU within int16, without loss: JPEG and JPEG 2000 by ITK, others by pydicom."""
    header = pydicom.dcmread(path)
    if syntax in (JPEGLosslessSV1, JPEGLossless, JPEG2000Lossless):
        encoded = path.with_name(f"{path.name}.encoded")
        hu = apply_rescale(header.pixel_array, header).astype(np.int16)
        write_slice(encoded, hu, (0, 0, 0), compressor="JPEG2000" if syntax == JPEG2000Lossless else "JPEG")
        other = pydicom.dcmread(encoded)
        encoded.unlink()
        tags = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope")
        for keyword in (*tags, "PixelData"):
            header[keyword] = other[keyword]
        header.file_meta.TransferSyntaxUID = syntax
    elif syntax.is_compressed:
        header.compress(syntax, generate_instance_uid=False)
    else:
        header.file_meta.TransferSyntaxUID = syntax
    header.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=True)


def patch(path, old, new):
    """Replace bytes of a file by others of the same length, for content that the writer refuses."""
    content = path.read_bytes()
    assert content.count(old) == 1 and len(old) == len(new)
    path.write_bytes(content.replace(old, new))


def write_ct_slice(path, stored, z=0.0, syntax=ExplicitVRLittleEndian, **tags):
    """Write one CT slice with pydicom: stored values (row, column), by default signed 16 bits, and any tags.

    Tags that are None are left out. Without rescale tags among them, stored values are HU.
    """
    stored = np.asarray(stored)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    own = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(entropy_srcs=[path.name, str(z)]),
        "StudyInstanceUID": "1.2.5",
        "SeriesInstanceUID": "1.2.7",
        "FrameOfReferenceUID": "1.2.6",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": [-10, -20, z],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.8, 0.7],
        "SliceThickness": 2.5,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": 8 * stored.dtype.itemsize,
        "BitsStored": 8 * stored.dtype.itemsize,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "HU",
        **tags,
    }
    own.setdefault("HighBit", own["BitsStored"] - 1)
    for keyword, value in own.items():
        if value is not None:
            setattr(header, keyword, value)
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.PixelData = stored.astype(stored.dtype.newbyteorder("<>"[syntax == ExplicitVRBigEndian])).tobytes()
    header["PixelData"].VR = "OW" if stored.dtype.itemsize > 1 else "OB"
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return header


def write_ct_series(folder, volume, step=2.5, **tags):
    """Write slices of a (slice, row, column) array with `write_ct_slice`, `step` mm apart; return the folder."""
    for number, plane in enumerate(volume):
        own = {keyword: value(number) if callable(value) else value for keyword, value in tags.items()}
        write_ct_slice(folder / f"{number:03}.dcm", plane, **{"z": step * number, "InstanceNumber": number + 1, **own})
    return folder


def write_enhanced_ct(path, stored, zs, *, slopes=None, shared=("orientation", "measures"), syntax=None, **frame_tags):
    """Write an enhanced CT of (frame, row, column) stored values, int16, with frames at heights in any order.

    Args:
        path: of the file.
        stored: of the frames.
        zs: height of each frame in mm.
        slopes: rescale slope of each frame; by default a shared one of 1.
        shared: functional groups that all frames share; the others are given for each frame.
        syntax: transfer syntax to compress with.
        frame_tags: values of FrameContentSequence by keyword, for each frame.
    """
    first = path.with_name(f"{path.name}.slice")
    header = write_ct_slice(first, stored[0], AcquisitionNumber=None, SOPClassUID=EnhancedCTImageStorage)
    first.unlink()
    geometry = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": header.ImageOrientationPatient},
        "PixelMeasuresSequence": {"PixelSpacing": header.PixelSpacing, "SliceThickness": 2.5},
    }
    names = {"orientation": "PlaneOrientationSequence", "measures": "PixelMeasuresSequence"}

    def group(**tags):
        found = Dataset()
        for keyword, value in tags.items():
            setattr(found, keyword, value)
        return [found]

    def rescale(slope):
        return group(RescaleSlope=slope, RescaleIntercept=-24, RescaleType="HU")

    common = Dataset()
    for name in shared:
        setattr(common, names[name], group(**geometry[names[name]]))
    if slopes is None:
        common.PixelValueTransformationSequence = rescale(1)
    frames = []
    for number, z in enumerate(zs):
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[-10, -20, z])
        frame.FrameContentSequence = group(**{keyword: values[number] for keyword, values in frame_tags.items()})
        for name in set(names) - set(shared):
            setattr(frame, names[name], group(**geometry[names[name]]))
        if slopes is not None:
            frame.PixelValueTransformationSequence = rescale(slopes[number])
        frames.append(frame)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(header, keyword)
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        delattr(header, keyword)
    header.SharedFunctionalGroupsSequence, header.PerFrameFunctionalGroupsSequence = [common], frames
    header.NumberOfFrames, header.PixelData = len(stored), np.ascontiguousarray(stored).tobytes()
    if syntax:
        header.compress(syntax, generate_instance_uid=False)
    header.save_as(path, enforce_file_format=True)
    return path
