"""Categories of failures: of unreadable files, and of errors of torch, MONAI and the system."""

import errno
import subprocess
import sys
import zipfile

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_files import write_slice
from monai.transforms import Compose, Lambda

from liverseg.errors import LiversegError, OutputError, UnreadableError, user_error
from liverseg.imageio.liver_mask import LiverSource
from liverseg.imageio.volume import read_volume
from liverseg.inference import ReadCTd
from liverseg.inference.failures import FAILURE_CATEGORIES, categorise_failure, describe_cause
from liverseg.results.case_folder import RECORD, refuse_another_input, write_case_files, write_json
from liverseg.utils.files import write_text

HU = np.random.default_rng(0).integers(-900, 900, (6, 5, 4)).astype(np.int16)


def nifti(path, array=HU, at=(0, 0, 0), **header):
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = at
    image = nib.Nifti1Image(array, affine)
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def study(folder, positions=(0, 3, 6), shear=0.0, **tags):
    for number, along in enumerate(positions):
        write_slice(folder / f"{number}.dcm", HU[:, :, number], (0, shear * along, along), **tags)
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])
    return path


def localiser(folder):
    import pydicom

    for path in study(folder).iterdir():
        header = pydicom.dcmread(path)
        header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        header.save_as(path)
    return folder


def zipped(path, folder):
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return path


INPUTS = {
    "missing": ("unreadable", lambda at: at / "none.nii.gz"),
    "truncated": ("unreadable", lambda at: cut(nifti(at / "a.nii.gz"))),
    "no DICOM": ("unreadable", lambda at: at),
    "no zip": ("unreadable", lambda at: nifti(at / "a.nii").rename(at / "a.zip")),
    "two studies' worth": ("unreadable", lambda at: (study(at / "a"), study(at / "b", (1, 4, 7), uid="1.2.4"), at)[2]),
    "series in time": ("geometry", lambda at: nifti(at / "a.nii.gz", np.stack([HU, HU], axis=-1))),
    "in metres": ("geometry", lambda at: nifti(at / "a.nii.gz", xyzt_units=1)),
    "gap": ("geometry", lambda at: study(at / "ct", (0, 3, 9))),
    "doubled": ("geometry", lambda at: study(at / "ct", (0, 3, 3))),
    "tilt": ("geometry", lambda at: study(at / "ct", shear=0.16)),
    "tilt in a zip": ("geometry", lambda at: zipped(at / "ct.zip", study(at / "ct", shear=0.16))),
    "coronal": ("geometry", lambda at: study(at / "ct", orientation="1\\0\\0\\0\\0\\-1")),
    "another modality": ("not CT", lambda at: study(at / "mr", modality="MR")),
    "localiser": ("not CT", lambda at: localiser(at / "ct")),
    "normalised": ("not CT", lambda at: nifti(at / "a.nii.gz", (HU / 900).astype(np.float32))),
    "NaN": ("not CT", lambda at: nifti(at / "a.nii.gz", np.full((3, 3, 3), np.nan, np.float32))),
    "padding": ("not CT", lambda at: nifti(at / "a.nii.gz", np.full((3, 3, 3), 1e6, np.float32))),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name, tmp_path):
    category, make = INPUTS[name]
    path = make(tmp_path)
    with pytest.raises(Exception) as caught:
        Compose([ReadCTd()])({"image": str(path), "case": "a"})  # it wraps exceptions
    assert not isinstance(caught.value, LiversegError)
    assert categorise_failure(caught.value, "read") == category in FAILURE_CATEGORIES
    known = user_error(caught.value)
    assert str(known).startswith(str(tmp_path)) and "\n" not in str(known) and known.exit_code == 1


def test_liver_masks(tmp_path):
    volume = read_volume(nifti(tmp_path / "ct.nii"))
    far = nifti(tmp_path / "far.nii", np.ones((2, 2, 2), np.uint8), at=(500, 0, 0))
    two = nifti(tmp_path / "two.nii", (HU > 0).astype(np.uint8) + (HU > 500))
    for mask, category in ((far, "geometry"), (two, "unreadable")):
        source = LiverSource.parse(mask).check()
        with pytest.raises(LiversegError) as caught:
            source.read(mask, volume)
        assert categorise_failure(caught.value, "another") == category
    with pytest.raises(UnreadableError, match="no such mask"):
        LiverSource.parse(tmp_path / "none.nii").check()


def test_outputs_and_conflicts(tmp_path):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="is the disk full") as caught:
        write_case_files(tmp_path / "a", {}, lambda path, hashes: full(path))
    assert categorise_failure(caught.value, "write") == "output"
    with pytest.raises(OutputError) as caught:
        write_text(tmp_path / "gone" / "a.txt", "a")
    assert categorise_failure(caught.value, "read") == "output"
    write_json(tmp_path / RECORD, {"input": {"path": "/a", "sha256": "1"}})
    with pytest.raises(LiversegError) as caught:
        refuse_another_input(tmp_path, {"path": "/b", "sha256": "2"})
    assert categorise_failure(caught.value, "write") == "conflict"


def raised(make):
    with pytest.raises(Exception) as caught:
        make()
    return caught.value


def test_too_little_memory():
    errors = [raised(lambda: torch.empty(1 << 50, dtype=torch.uint8)), raised(lambda: np.empty(1 << 50, np.uint8))]
    errors += [OSError(errno.ENOMEM, "Cannot allocate memory")]
    errors += [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when ...")]
    for error in errors:
        assert categorise_failure(error, "network") == "out of memory"
        error_with_cause = caused(UnreadableError("a.nii: voxels cannot be read"), error)
        assert categorise_failure(error_with_cause, "read") == "out of memory"


def caused(error, cause):
    error.__cause__ = cause
    return error


def test_what_is_not_known():
    def wrong(_):
        raise KeyError("volume")

    error = raised(lambda: Compose([Lambda(wrong)])({}))
    assert categorise_failure(error, "read") == categorise_failure(ValueError("odd"), "write") == "internal"
    unclassified = LiversegError("something")
    for stage, category in (("read", "unreadable"), ("network", "internal"), ("write", "output")):
        assert categorise_failure(unclassified, stage) == category
        assert categorise_failure(caused(RuntimeError("wrapped"), OSError(errno.EIO, "")), stage) == category


@pytest.mark.slow
def test_a_ct_for_which_there_is_no_memory(tmp_path):
    """In a separate process with limited memory."""
    path = nifti(tmp_path / "a.nii.gz", np.zeros((512, 512, 800), np.uint8))
    program = (
        "import resource, sys\n"
        "from liverseg.inference.failures import categorise_failure\n"
        "from liverseg.imageio.volume import read_volume\n"
        "now = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (now + (100 << 20),) * 2)\n"
        "try:\n    read_volume(sys.argv[1])\nexcept Exception as error:\n    print(categorise_failure(error, 'read'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "out of memory\n"), done.stderr


def test_an_unexpected_error_is_reported_with_its_cause():
    with pytest.raises(RuntimeError) as wrapped:
        Compose([Lambda(lambda data: {}[data])])(64)
    assert describe_cause(wrapped.value) == "KeyError: 64"
