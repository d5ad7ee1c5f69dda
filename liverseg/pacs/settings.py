"""Settings of the DICOM node, checked before it starts."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from liverseg.errors import UsageError
from liverseg.imageio.limits import MAX_BYTES, MAX_FILES

__all__ = ["OTHER_OBJECTS", "SUMMARIES", "Network", "NodeSettings", "RemoteNode"]

OTHER_OBJECTS = ("refuse", "ignore")
"""What to do with objects that are not CT images."""
SUMMARIES = ("none", "pdf", "secondary-capture")
"""Form of the picture that is sent with the results."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")
"""Printable ASCII without the backslash, PS3.5 table 6.2-1."""


@dataclass(frozen=True)
class RemoteNode:
    """Another DICOM application.

    Attributes:
        ae_title: its AE title.
        host: its name or address.
        port: its TCP port.
    """

    ae_title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> RemoteNode:
        """Convert AE@HOST:PORT, with an IPv6 address in brackets.

        Raises:
            UsageError: if it has another form.
        """
        ae_title, at, rest = text.partition("@")
        host, colon, port = rest.rpartition(":")
        if not (at and colon and host and port.isdecimal() and 0 < int(port) < 65536 and _is_ae_title(ae_title)):
            raise UsageError(f"destination {text!r}; AE@HOST:PORT is needed, such as PACS@10.0.0.5:104")
        return cls(ae_title.strip(), host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True)
class NodeSettings:
    """Settings of the node, without those of inference. The defaults are our choice.

    Attributes:
        folder: everything that the node writes.
        ae_title: AE title of the node; associations that call another one are rejected.
        address: local address to listen at; by default only this machine can connect.
        port: TCP port.
        quiet_seconds: a study is complete when no instance of it has come for this long, and the associations that
            brought some are closed.
        others: one of `OTHER_OBJECTS`.
        destination: where results are sent; None to keep them in the folder.
        summary: one of `SUMMARIES`.
        commit: ask the destination for storage commitment.
        send_days: give up sending a result after this many days.
        allow_ae: AE titles that may connect; empty for all.
        allow_address: networks that may connect; empty for all.
        tls_cert: certificate of the node, PEM; with it, only TLS connections are accepted.
        tls_key: its private key, PEM.
        tls_ca: certificates of the authorities of the peers, PEM; with it, peers need a certificate.
        destination_tls: connect to the destination by TLS.
        max_associations: associations at a time.
        max_pdu: largest PDU to receive, in bytes.
        max_instances: instances of a study.
        max_study_gb: size of a study, in GiB.
        min_free_gb: refuse instances while fewer GiB are free on the disk.
        keep_days: delete a study and its results this many days after its end; None keeps them.
        keep_identifiers: keep patient's name and id in the audit trail, and descriptions in records.
    """

    folder: Path
    ae_title: str = "LIVERSEG"
    address: str = "127.0.0.1"
    port: int = 11112
    quiet_seconds: float = 60.0
    others: str = "refuse"
    destination: RemoteNode | None = None
    summary: str = "none"
    commit: bool = False
    send_days: float = 7.0
    allow_ae: tuple[str, ...] = ()
    allow_address: tuple[Network, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    destination_tls: bool = False
    max_associations: int = 10
    max_pdu: int = 65536
    max_instances: int = MAX_FILES
    max_study_gb: float = MAX_BYTES / (1 << 30)
    min_free_gb: float = 5.0
    keep_days: float | None = None
    keep_identifiers: bool = False

    def __post_init__(self) -> None:
        for title in (self.ae_title, *self.allow_ae):
            if not _is_ae_title(title):
                raise UsageError(f"AE title {title!r}; 1 to 16 characters of ASCII are allowed, without backslash")
        for name, choices in (("others", OTHER_OBJECTS), ("summary", SUMMARIES)):
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} is {getattr(self, name)!r}; there are {', '.join(choices)}")
        for name, number, least, most in (
            ("port", self.port, 0, 65535),
            ("max_associations", self.max_associations, 1, 1000),
            ("max_pdu", self.max_pdu, 4096, 1 << 24),
            ("max_instances", self.max_instances, 1, MAX_FILES),
            ("max_study_gb", self.max_study_gb, 0.001, MAX_BYTES / (1 << 30)),
            ("min_free_gb", self.min_free_gb, 0, 1 << 20),
            ("send_days", self.send_days, 0.001, 3650),
            ("keep_days", self.keep_days, 0, 36500),
        ):
            if number is not None and not least <= number <= most:
                raise UsageError(f"{name.replace('_', '-')} is {number}; {least} to {most:.12g} are allowed")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("TLS needs both a certificate and its key: --tls-cert and --tls-key")
        if self.tls_ca is not None and self.tls_cert is None and not self.destination_tls:
            raise UsageError("--tls-ca is for TLS, but there is neither --tls-cert nor --destination-tls")
        if self.destination is None and (self.commit or self.destination_tls or self.summary != "none"):
            raise UsageError("--commit, --destination-tls and --summary are for results that are sent: --destination")

    @property
    def max_study_bytes(self) -> int:
        """Size of a study in bytes."""
        return int(self.max_study_gb * (1 << 30))

    @property
    def min_free_bytes(self) -> int:
        """Free bytes on the disk below which instances are refused."""
        return int(self.min_free_gb * (1 << 30))


def _is_ae_title(text: str) -> bool:
    return bool(_AE_TITLE.fullmatch(text) and text.strip())
