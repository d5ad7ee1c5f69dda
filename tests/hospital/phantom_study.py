"""A phantom's CT as a DICOM study, and `liverseg predict`'s results of it."""

import subprocess
import sys

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from liverseg.phantom.patient import Coverage, make_phantom

NAME, PATIENT_ID = "Phantom^Hospital", "PHANTOM-1"


def write_study(folder, seed, matrix):
    """Write a phantom of three lesion types as a CT series of one study; return the phantom and the study's UID."""
    phantom = make_phantom(
        np.random.SeedSequence(seed), matrix=matrix, coverage=Coverage.LIVER, main_type="metastasis", annotated=True
    )
    study, series, frame = (generate_uid(entropy_srcs=[str(seed), part]) for part in ("study", "series", "frame"))
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ phantom.affine
    steps = np.linalg.norm(to_lps[:3, :3], axis=0)
    direction = to_lps[:3, :3] / steps
    folder.mkdir(parents=True)
    for index in range(phantom.image.shape[2]):
        slice_ = Dataset()
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.SOPClassUID = slice_.file_meta.MediaStorageSOPClassUID = CTImageStorage
        uid = generate_uid(entropy_srcs=[str(seed), "slice", str(index)])
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = uid
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, series, frame
        slice_.PatientName, slice_.PatientID, slice_.PatientBirthDate, slice_.PatientSex = NAME, PATIENT_ID, "", "O"
        slice_.StudyDate, slice_.StudyTime, slice_.StudyID, slice_.AccessionNumber = "20260101", "120000", "1", "A1"
        slice_.StudyDescription, slice_.SeriesDescription = "Synthetic abdomen, no patient", "portal venous"
        slice_.ReferringPhysicianName = slice_.PositionReferenceIndicator = ""
        slice_.Modality, slice_.Manufacturer, slice_.ImageType = "CT", "phantom", ["ORIGINAL", "PRIMARY", "AXIAL"]
        slice_.SeriesNumber, slice_.InstanceNumber = 2, index + 1
        slice_.ImagePositionPatient = [f"{number:.4f}" for number in (to_lps @ [0, 0, index, 1])[:3]]
        slice_.ImageOrientationPatient = [f"{number:.6f}" for number in (*direction[:, 0], *direction[:, 1])]
        slice_.PixelSpacing = [f"{steps[1]:.6f}", f"{steps[0]:.6f}"]
        slice_.SliceThickness, slice_.KVP = f"{steps[2]:.4f}", "120"
        slice_.Columns, slice_.Rows = phantom.image.shape[:2]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.RescaleIntercept, slice_.RescaleSlope, slice_.RescaleType = "0", "1", "HU"
        slice_.WindowCenter, slice_.WindowWidth = "60", "360"
        slice_.PixelData = np.ascontiguousarray(phantom.image[:, :, index].T).tobytes()
        slice_.save_as(folder / f"{index:03}.dcm", enforce_file_format=True)
    return phantom, study


def predict(folder, output):
    """Run `liverseg predict` with the weights that come with the software; return the case's folder."""
    script = "from liverseg.cli.main import main; raise SystemExit(main())"
    words = ["predict", str(folder), str(output), "--keep-identifiers", "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (case,) = (path.parent for path in output.glob("*/record.json"))
    return case
