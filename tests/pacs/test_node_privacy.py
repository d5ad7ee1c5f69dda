"""No identifier leaves the received objects, but in the objects that are sent."""

import pydicom
import pytest
from node_processes import IDENTIFIERS, Archive, Node, connect, send, write_ct_study

pytestmark = pytest.mark.integration

WORDS = [
    *("Quasimodo", "Esmeralda", "PID-777", "ACC99887766", "STID5544", "Frollo", "Notre-Dame", "19470821", "20210314"),
]


def holding(folder, words):
    """Return (word, path) for each file below a folder that has a word in its content or its path."""
    found = set()
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for word in words:
            if word.encode() in content or word in str(path.relative_to(folder)):
                found.add((word, path.relative_to(folder).parts[0], path.name))
    return found


def test_identifiers_are_in_received_and_sent_objects_alone(tmp_path, weights):
    paths = write_ct_study(tmp_path / "ct", PatientID="PID-777")
    broken = write_ct_study(tmp_path / "broken", number=2, slices=6, PatientID="PID-777", SeriesDescription="Quasimodo")
    odd = write_ct_study(
        tmp_path / "odd", number=3, PatientID="PID-777", PatientBirthDate="Esmeralda's", PatientSex="Quasimodo"
    )
    other = pydicom.dcmread(paths[0])
    other.PatientID = "PID-777-Esmeralda"
    with Archive() as archive:
        options = ["--destination", f"ARCHIVE@127.0.0.1:{archive.port}", "--summary", "pdf", "--report"]
        with Node(tmp_path / "node", "--weights", weights, "--liver", "none", *options) as node:
            send(node.port, paths)
            association = connect(node.port, ae_title="CT1")
            assert association.send_c_store(other).Status == 0xC002
            association.release()
            send(node.port, broken[:2] + broken[3:])
            send(node.port, odd)
            node.wait_for("sent", times=2)
            node.wait_for("failed")
            _, out = node.stop()
    # the words can be found: they are in what was received and sent
    assert {word for word, *_ in holding(tmp_path / "ct", WORDS)} == {*WORDS}
    assert not [word for word in WORDS if word in out]
    allowed = {"studies", "outgoing"}
    found = holding(tmp_path / "node", WORDS)
    assert {place for _, place, _ in found} == allowed
    assert {name for _, place, name in found if place == "outgoing"} <= {
        "segmentation.dcm",
        "measurements.dcm",
        "summary.dcm",
    }
    assert all(name.endswith(".dcm") for *_, name in found)
    for item in archive.objects[:3]:
        assert item.PatientName == IDENTIFIERS["PatientName"]
        assert b"Quasimodo" not in item.get("EncapsulatedDocument", b"")


def test_audit_trail_names_the_patient_only_on_request(tmp_path, weights):
    paths = write_ct_study(tmp_path / "ct", PatientID="PID-777")
    with Node(tmp_path / "node", "--weights", weights, "--liver", "none", "--keep-identifiers") as node:
        send(node.port, paths)
        node.wait_for("done")
    (line,) = [line for line in node.audit() if line["EventID"]["csd-code"] == "110104"]
    study, patient = line["ParticipantObjects"]
    assert patient == {
        "ParticipantObjectTypeCode": 1,
        "ParticipantObjectID": "PID-777",
        "ParticipantObjectName": IDENTIFIERS["PatientName"],
    }
    assert study["Instances"] == 5
    assert [item["UserID"] for item in line["ActiveParticipants"]] == ["LIVERSEG", "MODALITY"]
