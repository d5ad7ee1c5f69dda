"""Limits of inputs that several readers share, so that a damaged or hostile file cannot fill memory or disk.

Each reader imports them under its own name, which a program may set: `liverseg.imageio.nifti.MAX_BYTES = 16 << 30`.
"""

__all__ = ["MAX_BYTES", "MAX_FILES", "MAX_RATIO"]

MAX_BYTES = 8 << 30
"""Bytes of the voxels of a volume as stored, or of an unpacked zip: 16 000 slices of 512×512 pixels of 16 bits."""
MAX_FILES = 20_000
"""Files of a DICOM study, in a folder or a zip: several times the slices of a study of many phases."""
MAX_RATIO = 100
"""Uncompressed bytes per compressed byte. A CT compresses to a half or a third, one that is mostly padding to a tenth.
"""
