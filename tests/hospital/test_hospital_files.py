"""The files of docker/hospital agree with the program and each other, are locked down, and hold no password."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import liverseg
from liverseg.cli.main import SUBCOMMANDS
from liverseg.labels import JOINT_LABELS

HOSPITAL = Path(__file__).resolve().parents[2] / "docker" / "hospital"


def text(name):
    return (HOSPITAL / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(text("compose.yaml"))


@pytest.fixture(scope="module")
def orthanc():
    return json.loads(text("orthanc.json"))


@pytest.mark.parametrize("name", ["orthanc", "node", "viewer"])
def test_services_are_locked_down_and_watched(compose, name):
    service = compose["services"][name]
    assert service["read_only"] and service["init"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"] and service["pids_limit"] and service["healthcheck"]["test"][0] == "CMD"
    assert all(mount["read_only"] for mount in service["volumes"] if mount["type"] == "bind")
    named = {mount["source"] for mount in service["volumes"] if mount["type"] == "volume"}
    assert named <= set(compose["volumes"])
    for mount in service["volumes"]:
        if mount["type"] == "bind" and mount["source"].startswith("./"):
            assert (HOSPITAL / mount["source"]).is_file()
    if "build" in service:
        assert (HOSPITAL / service["build"]["dockerfile"]).is_file()


def test_images_are_pinned(compose):
    for service in compose["services"].values():
        image = re.fullmatch(r"\$\{\w+:-(.+)\}", service["image"])[1]
        assert re.search(r":\d+\.\d+\.\d+$", image), image
    assert compose["services"]["node"]["image"].endswith(f":{liverseg.__version__}}}")
    dockerfile = text("viewer.Dockerfile")
    assert re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)[1].startswith("nginxinc/nginx-unprivileged:1.")
    version = re.search(r"ARG OHIF=(\S+)", dockerfile)[1]
    assert compose["services"]["viewer"]["image"].endswith(f":{version}}}")
    assert re.search(r"ARG SHA256=[0-9a-f]{64}$", dockerfile, re.MULTILINE)


def test_only_the_archive_and_the_viewer_can_be_reached(compose):
    assert compose["networks"]["inside"] == {"internal": True}
    assert compose["services"]["node"]["networks"] == ["inside"]
    ports = {name: service.get("ports", []) for name, service in compose["services"].items()}
    assert ports == {
        "orthanc": ["${DICOM_PORT:-4242}:4242"],  # not its HTTP port
        "node": [],
        "viewer": ["${VIEWER_PORT:-443}:8443"],
    }


def test_the_archive_reads_its_own_configuration_and_loads_its_plugin(compose, orthanc):
    service = compose["services"]["orthanc"]
    targets = [mount["target"] for mount in service["volumes"]]
    assert service["command"] == ["/etc/orthanc/orthanc.json"] and set(service["command"]) < set(targets)
    assert set(orthanc["LuaScripts"]) < set(targets)
    assert orthanc["StorageDirectory"] == orthanc["IndexDirectory"] and orthanc["StorageDirectory"] in targets
    # where the images jodogne/orthanc-plugins have it; Debian's package has it below /usr/share
    assert orthanc["Plugins"] == ["/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so"]


def test_passwords_come_from_the_environment(compose, orthanc):
    assert orthanc["AuthenticationEnabled"] and orthanc["RegisteredUsers"] == {"${VIEWER_USER}": "${VIEWER_PASSWORD}"}
    for variable in ("VIEWER_USER", "VIEWER_PASSWORD"):
        assert compose["services"]["orthanc"]["environment"][variable].startswith(f"${{{variable}:?")


def test_variables_of_the_archive_are_passed_on(compose):
    used = set(re.findall(r"\$\{(\w+)", text("orthanc.json"))) | set(
        re.findall(r"getenv\('(\w+)'\)", text("forward.lua"))
    )
    assert used - {"NODE_HOST", "NODE_PORT"} == set(compose["services"]["orthanc"]["environment"])


def test_archive_and_node_know_each_other(orthanc):
    node = yaml.safe_load(text("node.yaml"))
    known = orthanc["DicomModalities"]["liverseg"]
    assert (known["AET"], known["Host"], known["Port"]) == (
        node["ae-title"],
        "${NODE_HOST:-node}",
        "${NODE_PORT:-11112}",
    )
    assert node["port"] == 11112
    assert node["destination"] == f"{orthanc['DicomAet']}@orthanc:{orthanc['DicomPort']}"
    assert node["allow-ae"] == [orthanc["DicomAet"]]
    assert not any(orthanc[f"DicomAlwaysAllow{what}"] for what in ("Store", "Find", "Get", "Move"))
    assert orthanc["DicomCheckCalledAet"] and not orthanc["ExecuteLuaEnabled"] and not orthanc["OverwriteInstances"]
    assert orthanc["StableAge"] < node["quiet-seconds"]  # all series of a study are one version for the node


@pytest.mark.skipif("listen" not in SUBCOMMANDS, reason="no liverseg listen")
def test_the_node_takes_its_options(compose, tmp_path):
    import argparse
    import importlib

    listen = importlib.import_module("liverseg.cli.listen")
    config = tmp_path / "node.yaml"
    config.write_text(text("node.yaml"), encoding="utf-8")
    words = [
        str(config) if word == "/etc/liverseg/node.yaml" else word for word in compose["services"]["node"]["command"]
    ]
    assert words[:2] == ["listen", "/output"]
    parser = argparse.ArgumentParser()
    listen.add_arguments(parser)
    args = parser.parse_args(words[1:])
    listen._merge_config(args)
    assert (args.port, args.allow_ae, args.keep_days) == (11112, ["ORTHANC"], 7)
    check = compose["services"]["node"]["healthcheck"]["test"]
    assert check[:2] == ["CMD", "liverseg"] and check[2:-1] == compose["services"]["node"]["command"]


def test_the_picture_of_the_segments_has_the_colours_of_the_label_table():
    picture = np.asarray(
        Image.open(HOSPITAL.parents[1] / "docs" / "images" / "hospital_segmentation.png").convert("RGB")
    )
    for label in JOINT_LABELS[1:]:
        assert (picture == label.color).all(axis=-1).sum() > 20, label.name  # the dot beside its name


def test_the_viewer_is_read_only_and_talks_to_one_address():
    nginx, config = text("nginx.conf"), text("app-config.js")
    assert re.search(r"location /dicom-web/ \{\s+limit_except GET \{\s+deny all;", nginx)
    assert set(re.findall(r"proxy_pass (\S+);", nginx)) == {"http://orthanc:8042/dicom-web/"}
    assert "default-src 'self'" in nginx and "error_log /dev/stderr crit" in nginx
    assert set(re.findall(r"(?:qido|wado|wadoUri)Root: '([^']+)'", config)) == {"/dicom-web"}
    assert "http" not in config
