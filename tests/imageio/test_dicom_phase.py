"""The contrast phase of a series by its header, and which series of several is read."""

import numpy as np
import pytest
from dicom_files import write_ct_series, write_ct_slice

from liverseg.errors import UnreadableError
from liverseg.imageio.dicom_header import read_slices
from liverseg.imageio.dicom_phase import phase_of_header
from liverseg.imageio.dicom_select import choose_series

NAMES = {
    "portal": [
        *(
            "Portal venous 5.0",
            "ABD PV",
            "Abdomen PVP 1.5mm",
            "VENOUS PHASE",
            "Oberbauch portalvenös",
            "porto-venöse Phase",
        ),
        *(
            "Abdomen venös",
            "temps portal",
            "foie veineux",
            "fase portale",
            "fase venosa",
            "faza wrotna",
            "wątroba żylna",
        ),
        *("Портальная", "венозная фаза", "门脉期", "门静脉期", "門脈相", "静脉期", "문맥기", "Liver 70s", "Abd 65 sec"),
    ],
    "arterial": [
        *(
            "Arterial 2.0",
            "ART 1.25",
            "late arterial",
            "spätarteriell",
            "artériel tardif",
            "Leber arteriell",
            "tętnicza",
        ),
        *("fase arteriosa", "Артериальная", "动脉期", "動脈相", "동맥기", "HAP", "Liver 35s"),
    ],
    "delayed": [
        *(
            "Delayed 5 min",
            "late phase",
            "Spätphase",
            "temps tardif",
            "fase tardiva",
            "fase tardía",
            "отсроченная фаза",
        ),
        *("faza późna", "equilibrium", "延迟期", "遅延相", "平衡相", "지연기", "Leber 180 s"),
    ],
    "native": [
        *("Native", "Abdomen nativ", "non-contrast", "NCCT", "unenhanced", "ohne KM", "sans injection", "senza mdc"),
        *("sin contraste", "bez kontrastu", "нативная", "без контраста", "平扫", "単純", "조영전", "w/o contrast"),
    ],
    None: [
        *("", "Abdomen 5.0 B30f", "Recon 3: LIVER 2 PHASE (C/A/P)", "arterial and portal", "TAP", "Thorax-Abdomen AP"),
        *("CT with and without contrast", "Body 1.5 s", "TC del abdomen", "Support 2.0", "smart recon", "part 1"),
    ],
}


def header(tmp_path, **tags):
    write_ct_slice(tmp_path / "0.dcm", np.zeros((4, 5), np.int16), SpecificCharacterSet="ISO_IR 192", **tags)
    return read_slices(tmp_path / "0.dcm")


@pytest.mark.parametrize(("phase", "name"), [(phase, name) for phase, names in NAMES.items() for name in names])
def test_names(phase, name, tmp_path):
    assert phase_of_header(header(tmp_path, SeriesDescription=name)) == phase


@pytest.mark.parametrize(
    ("tags", "phase"),
    [
        ({"SeriesDescription": "Abdomen", "ProtocolName": "Leber venös"}, "portal"),
        ({"SeriesDescription": "arteriell", "ProtocolName": "Leber venös"}, "arterial"),
        ({"SeriesDescription": "arteriell/venös", "ProtocolName": "Leber venös"}, None),
        ({"ContrastBolusStartTime": "101000", "AcquisitionTime": "101030"}, "arterial"),
        ({"ContrastBolusStartTime": "101000", "AcquisitionTime": "101112.5"}, "portal"),
        ({"ContrastBolusStartTime": "235930", "AcquisitionDateTime": "20200101235959"}, "arterial"),
        ({"ContrastBolusStartTime": "235930", "AcquisitionTime": "000040"}, "portal"),
        ({"ContrastBolusStartTime": "101000", "AcquisitionTime": "100930"}, None),
        ({"ContrastBolusStartTime": "101000", "AcquisitionTime": "101500"}, "delayed"),
        ({"ContrastBolusStartTime": "101000", "AcquisitionTime": "101010"}, None),
        ({"ContrastBolusAgent": "none"}, "native"),
        ({"ContrastBolusAgent": "Iomeron 350"}, None),
    ],
)
def test_other_tags(tags, phase, tmp_path):
    assert phase_of_header(header(tmp_path, **tags)) == phase


def study(tmp_path, **series):
    """Write series of (number of slices, spacing, description) by UID."""
    for number, (uid, (slices, step, description)) in enumerate(series.items()):
        volume = np.random.default_rng(number).integers(-1000, 1500, (slices, 4, 5)).astype(np.int16)
        tags = {"SeriesInstanceUID": f"1.2.3{uid[1:]}", "SeriesDescription": description}
        write_ct_series(tmp_path / uid, volume, step, **tags)
    return tmp_path


@pytest.mark.parametrize(
    ("phase", "uid", "slices", "reason"),
    [
        (None, "1.2.32", 10, "read is that portal by its header, left out: 1 arterial, 1 of unknown phase"),
        ("portal", "1.2.32", 10, "read is that portal by its header, left out: 1 arterial, 1 of unknown phase"),
        ("arterial", "1.2.31", 40, "read is that arterial by its header, left out: 1 portal, 1 of unknown phase"),
    ],
)
def test_the_phase_decides_among_series_that_reach_as_far(phase, uid, slices, reason, tmp_path):
    study(tmp_path, u1=(40, 2.5, "arterial"), u2=(10, 10, "portal"), u3=(20, 5, "Abdomen"), u4=(9, 2.5, "portal"))
    chosen = choose_series(tmp_path, phase=phase)
    assert (chosen.uid, chosen.depth) == (uid, slices)
    assert chosen.warnings == (f"3 axial stacks of comparable length; {reason}",)


def test_a_long_scan_does_not_hide_an_abdomen(tmp_path):
    study(tmp_path, u1=(120, 5, "arterial chest and abdomen"), u2=(44, 5, "portal"))
    assert choose_series(tmp_path).uid == "1.2.32"


def test_where_the_headers_are_silent_the_image_decides(tmp_path):
    study(tmp_path, u1=(10, 2.5, "A"), u2=(10, 2.5, "B"), u3=(10, 2.5, "delayed"))
    seen = []

    def estimate(slices):
        seen.append(slices[0].uid)
        return {"1.2.31": "arterial", "1.2.32": "portal"}[slices[0].uid]

    chosen = choose_series(tmp_path, estimate_phase=estimate)
    assert chosen.uid == "1.2.32" and seen == ["1.2.31", "1.2.32"]
    assert "read is that portal by the brightness of its aorta, left out: 1 arterial, 1 delayed" in chosen.warnings[0]
    assert choose_series(tmp_path, phase="arterial", estimate_phase=estimate).uid == "1.2.31"
    with pytest.raises(UnreadableError, match=r"3 series of most slices, .* neither header nor image decides"):
        choose_series(tmp_path, estimate_phase=lambda slices: None)


def test_what_no_phase_decides(tmp_path):
    study(tmp_path, u1=(10, 2.5, "portal"), u2=(10, 2.5, "venous"), u3=(10, 2.5, "arterial"))
    with pytest.raises(
        UnreadableError,
        match=r"2 series of most slices, 1\.2\.31 .*, 1\.2\.32 .*; name one as series \(--series\), or a phase \(--ph",
    ):
        choose_series(tmp_path)
    with pytest.raises(
        UnreadableError, match=r"no series in the native phase \(found: 2 portal, 1 arterial\), 1\.2\.31"
    ):
        choose_series(tmp_path, phase="native")
    assert choose_series(tmp_path, "1.2.33").uid == "1.2.33"


def test_two_phases_in_one_series_named_by_their_delay(tmp_path):
    for phase, time in enumerate(("101030", "101115")):
        for number in range(10):
            tags = {"AcquisitionTime": time, "ContrastBolusStartTime": "101000", "SeriesDescription": "Liver 2 phases"}
            plane = np.full((4, 5), 100 * phase + number, np.int16)
            write_ct_slice(tmp_path / f"{phase}_{number}", plane, 2.5 * number, **tags)
    chosen = choose_series(tmp_path)
    assert {path.name[0] for path in chosen.files} == {"1"}
    assert {path.name[0] for path in choose_series(tmp_path, phase="arterial").files} == {"0"}
    with pytest.raises(UnreadableError, match="no series in the native phase"):
        choose_series(tmp_path, "Liver 2 phases", phase="native")


def test_stacks_of_one_series_are_named_by_their_files(tmp_path):
    for number in range(10):
        for stack in "ab":
            tags = {"AcquisitionNumber": ord(stack), "SOPInstanceUID": f"1.2.{ord(stack)}.{number}"}
            write_ct_slice(tmp_path / f"{stack}{number}", np.full((4, 5), ord(stack), np.int16), 2.5 * number, **tags)
    message = (
        "2 stacks of 10 slices in one series, a0 and its like and b0 and its like, .*; put the files of one into a "
        "folder of its own"
    )
    for series in (None, "1.2.7"):
        with pytest.raises(UnreadableError, match=message):
            choose_series(tmp_path, series)


def test_one_series_of_unknown_phase(tmp_path):
    study(tmp_path, u1=(10, 2.5, "Abdomen"))
    assert choose_series(tmp_path).warnings == ()
    (warning,) = choose_series(tmp_path, phase="portal").warnings
    assert warning == "whether this is the portal phase is not known: neither header nor image state it"
