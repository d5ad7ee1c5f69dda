"""Fetch studies from a DICOMweb server (QIDO-RS, WADO-RS) and store results on one (STOW-RS), PS3.18.

A study is named by its URL, `https://server/dicom-web/studies/UID`, optionally with `/series/UID`. The token of the
environment variable `LIVERSEG_DICOMWEB_TOKEN` is sent to the server as a bearer token and never printed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import parse_qsl, urlsplit

from liverseg.cases.discover import find_cases
from liverseg.errors import (
    ExitCode,
    LiversegError,
    OutputError,
    SomeCasesFailed,
    UnreadableError,
    UsageError,
    one_line,
)
from liverseg.imageio.limits import MAX_BYTES, MAX_FILES
from liverseg.pacs.outgoing import prepare_objects
from liverseg.results.case_folder import RECORD, read_case_record
from liverseg.utils.csv_table import read_csv
from liverseg.utils.files import fsync_paths, is_file, read_json, sha256_file, write_text

if TYPE_CHECKING:
    from dicomweb_client.web import DICOMwebClient

__all__ = [
    "TOKEN_VARIABLE",
    "DicomWebUrl",
    "fetch_cases",
    "fetch_study",
    "is_url",
    "predict_and_store",
    "store_batch",
    "store_case",
    "store_cases",
    "temporary_study",
]

TOKEN_VARIABLE = "LIVERSEG_DICOMWEB_TOKEN"
"""Environment variable with the bearer token."""
_TIMEOUT = (10.0, 120.0)
"""Seconds to connect, and between two packets."""
_ATTEMPTS = 3
"""Attempts for a series whose transfer breaks off."""
_MAX_STUDIES = 100_000
_UID = re.compile(r"[0-9.]{1,64}")
_PATH = re.compile(r"(?P<service>.*?)/studies(?:/(?P<study>[^/]+)(?:/series/(?P<series>[^/]+))?)?/?")
_LOCAL = ("localhost", "127.0.0.1", "::1")
_Result = TypeVar("_Result")


def is_url(text: str | os.PathLike) -> bool:
    """Return whether a source is a URL and not a path."""
    return str(text).startswith(("http://", "https://"))


@dataclass(frozen=True)
class DicomWebUrl:
    """A URL of a DICOMweb server.

    Attributes:
        service: URL of the service, before `/studies`.
        study: StudyInstanceUID; None for a query or the service alone.
        series: SeriesInstanceUID.
        query: parameters of a query.
    """

    service: str
    study: str | None = None
    series: str | None = None
    query: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> DicomWebUrl:
        """Convert a URL of a study, a series, a query or a service.

        Raises:
            UsageError: if it is none of these. The message does not repeat a query, which may hold names.
        """
        parts = urlsplit(text)
        shown = f"{parts.scheme}://{parts.hostname}{parts.path}"
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{shown}: not a URL; https://server/dicom-web/studies/UID is needed")
        if parts.username or parts.password:
            raise UsageError(f"{shown}: has a password in it; set {TOKEN_VARIABLE} instead")
        service = f"{parts.scheme}://{parts.netloc}"
        match = _PATH.fullmatch(parts.path)
        if match is None:
            return cls(service + parts.path.rstrip("/"))
        uids = match["study"], match["series"]
        if not all(uid is None or _UID.fullmatch(uid) for uid in uids):
            raise UsageError(f"{shown}: its UIDs may hold digits and points only")
        return cls(service + match["service"], *uids, tuple(parse_qsl(parts.query)))

    def study_url(self) -> str:
        """Return the URL of the study or the series."""
        series = f"/series/{self.series}" if self.series else ""
        return f"{self.service}/studies/{self.study}{series}"


def fetch_study(url: str, folder: Path, series: str | None = None) -> Path:
    """Fetch the CT series of a study.

    Args:
        url: of the study, or of one of its series.
        folder: its parent must exist. It appears complete or not at all; if it is there, nothing is fetched.
        series: UID or description of the series to fetch, if the URL names none; by default all CT series.

    Returns:
        The folder, with one file for each instance.

    Raises:
        UsageError: if the URL is not that of a study.
        LiversegError: if the server does not answer as a DICOMweb server, does not allow it, or has no such CT, or the
            limits on the size of a study would be exceeded.
    """
    source = DicomWebUrl.parse(url)
    if source.study is None:
        raise UsageError(f"{source.service}: names no study; https://server/dicom-web/studies/UID is needed")
    if folder.is_dir():
        return folder
    client = _client(source)
    uids = _ct_series(client, source, series)
    unfinished = folder.with_name(f".unfinished-{folder.name}")
    try:
        unfinished.mkdir(mode=0o700, exist_ok=True)
        for uid in uids:
            _fetch_series(client, source, uid, unfinished)
        fsync_paths(unfinished)
        unfinished.rename(folder)
    except OSError as error:
        raise OutputError(
            f"{folder}: the study cannot be written ({error.strerror or type(error).__name__}); is the disk full?"
        ) from error
    return folder


def fetch_cases(source: str | Path, folder: Path, series: str | None = None) -> Path:
    """Fetch the studies that a batch names by URL.

    They stay in the folder: a batch that is run again checks its cases against their input.

    Args:
        source: URL of a study, or of a query for studies as `.../studies?StudyDate=20250101-&ModalitiesInStudy=CT`; or
            path of a manifest, some of whose images may be URLs of studies.
        folder: of the fetched studies, made if missing.
        series: as for `fetch_study`, for studies whose row names none.

    Returns:
        Path of the source if it holds no URL, else of a manifest with the fetched folders.

    Raises:
        LiversegError: if the source cannot be read. A study that cannot be fetched becomes a case that fails as
            unreadable, unless it is the only one; the reason is printed to stderr.
    """
    text = str(source)
    folder = folder.absolute()  # relative paths of a manifest would be below its own folder
    if is_url(text):
        rows: Sequence[Mapping[str, Any]] = [
            {"case": DicomWebUrl.parse(url).study or "", "image": url} for url in _studies(text)
        ]
    else:
        rows = _manifest_rows(Path(text))
        if not any(is_url(str(row.get("image", "")).strip()) for row in rows):
            return Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror or error})") from error
    fetched = []
    for row in rows:
        image = str(row.get("image", "")).strip()
        if is_url(image):
            target = folder / sha256(f"{image} {row.get('series') or series}".encode()).hexdigest()[:32]
            try:
                fetch_study(image, target, str(row.get("series") or series or "") or None)
            except UsageError:
                raise
            except LiversegError as error:
                if len(rows) == 1:
                    raise
                print(f"liverseg: {row.get('case')}: not fetched: {error}", file=sys.stderr, flush=True)
            row = {**row, "image": str(target)}
        fetched.append({str(name): value for name, value in row.items() if value not in (None, "")})
    manifest = folder / "manifest.json"
    write_text(manifest, json.dumps(fetched, indent=1) + "\n")
    return manifest


def store_case(case: Path, url: str, folder: Path) -> int:
    """Store the DICOM results of a case on a server, with patient and study of its slices.

    Args:
        case: case folder of a CT from a folder of DICOM files, which must still be there.
        url: of the server's DICOMweb service.
        folder: for the objects that are stored.

    Returns:
        Number of objects stored.

    Raises:
        LiversegError: if the case has no DICOM results, or the server does not store them.
    """
    import pydicom

    source = DicomWebUrl.parse(url)
    record = read_case_record(case)
    image = Path(record["input"]["path"]) if record else None
    if (
        record is None
        or image is None
        or not image.is_dir()
        or not {"segmentation.dcm", "measurements.dcm"} & {*record["files"]}
    ):
        raise LiversegError(f"{case}: no DICOM results to store; only CTs from folders of DICOM files have them")
    objects = prepare_objects(case, image, folder)
    client = _client(source)

    def store() -> Any:
        return client.store_instances([pydicom.dcmread(item.path) for item in objects])

    answer = _ask(source, store)
    failed = answer.get("FailedSOPSequence") if answer is not None else None
    if failed:
        raise LiversegError(f"{source.service}: {len(failed)} of {len(objects)} objects of {case.name} were not stored")
    return len(objects)


def store_cases(output: Path, url: str, work: Path) -> tuple[int, list[str]]:
    """Store the results of every case of a batch that has not been stored yet.

    Args:
        output: of the batch.
        url: of the server's DICOMweb service.
        work: folder for the objects and for the record of what is stored, made if missing.

    Returns:
        Number of cases stored now, and the errors of the others.
    """
    stored, errors = 0, []
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    for record in sorted(output.glob(f"*/{RECORD}")):
        content = read_case_record(record.parent) or {}
        if not {"segmentation.dcm", "measurements.dcm"} & {*content.get("files", ())}:
            continue
        digest = sha256_file(record)
        mark = work / f"{record.parent.name}.stored"
        with suppress(OSError):
            if mark.read_text(encoding="utf-8") == f"{digest} {url}":
                continue
        objects = work / f"{record.parent.name}-{digest[:16]}"
        try:
            store_case(record.parent, url, objects)
        except LiversegError as error:
            errors.append(str(error))
            continue
        write_text(mark, f"{digest} {url}")
        shutil.rmtree(objects, ignore_errors=True)
        stored += 1
    return stored, errors


def predict_and_store(
    source: str | Path, output: Path, series: str | None, store_to: str | None, predict: Callable[[Path], None]
) -> ExitCode:
    """Compute a CT that a URL or a path names, and store its results.

    Args:
        source: URL of a study, which is fetched into a temporary folder, or a path.
        output: folder of results.
        series: as for `fetch_study`.
        store_to: URL of a DICOMweb service; None to store nothing.
        predict: computes the CT at a path into `output`.

    Raises:
        LiversegError: as `fetch_study` and `store_case`, and from `predict`.
    """
    if store_to is not None:
        DicomWebUrl.parse(store_to)  # refuse a wrong one at once
    with ExitStack() as stack:
        path = stack.enter_context(temporary_study(source, series)) if isinstance(source, str) else source
        predict(path)
        if store_to is not None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="liverseg-store-")))
            for item in find_cases(path):
                count = store_case(output.absolute() / item["case"], store_to, work / "objects")
                print(f"{item['case']}: {count} objects stored at {DicomWebUrl.parse(store_to).service}")
    return ExitCode.DONE


@contextmanager
def temporary_study(url: str, series: str | None = None) -> Iterator[Path]:
    """Fetch a study into a temporary folder that is named by its UID, for the duration of a block.

    Raises:
        LiversegError: as `fetch_study`.
    """
    study = DicomWebUrl.parse(url).study
    try:
        parent = Path(tempfile.mkdtemp(prefix="liverseg-dicomweb-"))
    except OSError as error:
        raise OutputError(f"no temporary folder ({one_line(error)}); set TMPDIR to a writable folder") from error
    try:
        yield fetch_study(url, parent / (study or "study"), series)
    finally:
        shutil.rmtree(parent, ignore_errors=True)


@contextmanager
def store_batch(output: Path, store_to: str | None) -> Iterator[None]:
    """Store the results of a batch at the end of a block, also if some of its cases failed.

    Args:
        output: of the batch.
        store_to: URL of a DICOMweb service; None to store nothing.

    Raises:
        SomeCasesFailed: if results could not be stored; the same command tries again.
        LiversegError: from the block.
    """
    if store_to is not None:
        DicomWebUrl.parse(store_to)
    failure: SomeCasesFailed | None = None
    try:
        yield
    except SomeCasesFailed as error:
        failure = error
    if store_to is not None:
        count, errors = store_cases(output.absolute(), store_to, output.absolute() / ".liverseg" / "stored")
        print(f"results of {count} cases stored at {DicomWebUrl.parse(store_to).service}")
        if errors:
            raise SomeCasesFailed(f"{len(errors)} cases were not stored, the first because of: {errors[0]}")
    if failure is not None:
        raise failure


def _client(source: DicomWebUrl) -> DICOMwebClient:
    try:
        import requests
        from dicomweb_client.web import DICOMwebClient
    except ImportError as error:
        raise LiversegError(f"DICOMweb needs dicomweb-client ({error}): pip install 'liverseg[pacs]'") from error
    session = requests.Session()
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if token:
        parts = urlsplit(source.service)
        if parts.scheme != "https" and parts.hostname not in _LOCAL:
            raise UsageError(f"{source.service}: {TOKEN_VARIABLE} is not sent without TLS; give an https URL")
        session.auth = _bearer(token)
    session.hooks["response"].append(_limit_size)
    try:
        client = DICOMwebClient(source.service, session=session, timeout=_TIMEOUT)
    except ValueError as error:
        raise UsageError(f"{source.service}: not the URL of a DICOMweb service") from error
    client.set_http_retry_params(max_attempts=4)
    return client


def _bearer(token: str) -> Callable[[Any], Any]:
    """Return requests' authentication by a token, which redirections to other servers do not get."""

    def add(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return add


def _limit_size(response: Any, *_: Any, **__: Any) -> Any:
    """Stop a response that is larger than a study may be."""
    read = response.iter_content

    def bounded(*args: Any, **kwargs: Any) -> Iterator[bytes]:
        size = 0
        for chunk in read(*args, **kwargs):
            size += len(chunk)
            if size > MAX_BYTES:
                raise UnreadableError(f"the server sends more than {MAX_BYTES} bytes; give one series")
            yield chunk

    response.iter_content = bounded
    return response


def _ask(source: DicomWebUrl, question: Callable[[], _Result]) -> _Result:
    """Return the answer to a request.

    Raises:
        LiversegError: if there is none. The message holds no token, and no text of the server's answer.
    """
    import requests

    try:
        return question()
    except requests.HTTPError as error:
        _raise_for_status(source, error.response.status_code if error.response is not None else 0)
    except requests.exceptions.SSLError as error:
        reason = "TLS failed; does the server speak https at this port?"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            reason = "its TLS certificate is not trusted; set REQUESTS_CA_BUNDLE to your authority's PEM file"
        raise UnreadableError(f"{source.service}: {reason}") from error
    except requests.Timeout as error:
        raise UnreadableError(f"{source.service}: no answer in {_TIMEOUT[1]:g} s") from error
    except requests.ConnectionError as error:
        raise UnreadableError(f"{source.service}: cannot be reached, or has closed the connection") from error
    except requests.exceptions.InvalidURL as error:
        raise UsageError(f"{source.service}: not a URL") from error
    except LiversegError:
        raise
    except Exception as error:  # of other formats than DICOMweb's
        if type(error).__name__ == "RetryError":
            raise UnreadableError(f"{source.service}: is too busy (429, 408, 503 or 504); try again later") from error
        raise UnreadableError(
            f"{source.service}: does not answer as a DICOMweb server ({type(error).__name__}); is the path right?"
        ) from error


def _raise_for_status(source: DicomWebUrl, status: int) -> NoReturn:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    reasons = {
        401: f"the server refuses the token of {TOKEN_VARIABLE} (401); is it expired, or of another server?"
        if token
        else f"the server wants a token (401); set {TOKEN_VARIABLE}",
        403: "the server does not allow it (403); may this token read and store the study?",
        404: "not found (404); check the path and the UIDs",
    }
    reason = reasons.get(status, f"the server answers with status {status}")
    raise UnreadableError(f"{source.study_url() if source.study else source.service}: {reason}")


def _studies(url: str) -> list[str]:
    """Return the URLs of the studies of a query; a URL of a study is returned unchanged."""
    source = DicomWebUrl.parse(url)
    if source.study is not None:
        return [url]
    client = _client(source)
    parameters: dict[str, Any] = dict(source.query)
    studies: dict[str, None] = {}
    while len(studies) <= _MAX_STUDIES:
        page = _ask(source, partial(client.search_for_studies, additional_params=dict(parameters)))
        uids = [uid for uid in (_value(item, "0020000D") for item in page) if _UID.fullmatch(uid)]
        if not {*uids} - {*studies}:  # also of a server that ignores the offset and sends all again
            break
        studies |= dict.fromkeys(uids)
        if "limit" in parameters:
            break
        parameters["offset"] = int(parameters.get("offset", 0)) + len(page)
    if not studies:
        raise UnreadableError(f"{source.service}: no study matches the query")
    if len(studies) > _MAX_STUDIES:
        raise UnreadableError(f"{source.service}: {len(studies)} studies match, {_MAX_STUDIES} are allowed")
    return [f"{source.service}/studies/{uid}" for uid in studies]


def _ct_series(client: DICOMwebClient, source: DicomWebUrl, wanted: str | None) -> list[str]:
    """Return the UIDs of the CT series to fetch."""
    study = str(source.study)
    found = _ask(source, lambda: client.search_for_series(study, fields=["SeriesDescription"]))
    if not found:
        raise UnreadableError(f"{source.study_url()}: the server has no such study, or shows none of it")
    scans = [item for item in found if _value(item, "00080060") == "CT"]
    uids = [_value(item, "0020000E") for item in scans]
    if source.series is not None:
        chosen = [uid for uid in uids if uid == source.series]
    elif wanted is None:
        chosen = uids
    else:
        chosen = [uid for uid in uids if uid == wanted]
        if not chosen:
            chosen = [
                uid
                for uid, item in zip(uids, scans, strict=True)
                if _value(item, "0008103E").lower() == wanted.lower() or uid.endswith(wanted)
            ]
    chosen = [uid for uid in chosen if _UID.fullmatch(uid)]
    if not chosen:
        raise UnreadableError(f"{source.study_url()}: no such CT series among its {len(found)} series")
    return chosen


def _fetch_series(client: DICOMwebClient, source: DicomWebUrl, series: str, folder: Path) -> None:
    """Write the instances of a series, as the server stores them, while they arrive."""

    def fetch() -> None:
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        size = sum(sizes.values())
        for item in client.iter_series(str(source.study), series, media_types=(("application/dicom", "*"),)):
            path = folder / f"{sha256(str(item.SOPInstanceUID).encode()).hexdigest()[:40]}.dcm"
            if size > MAX_BYTES or len(sizes) >= MAX_FILES:
                raise UnreadableError(
                    f"{source.study_url()}: more than {MAX_BYTES} bytes or {MAX_FILES} instances; give one series"
                )
            item.save_as(path, enforce_file_format=True)
            size -= sizes.get(path.name, 0)  # of an attempt that broke off
            sizes[path.name] = path.stat().st_size
            size += sizes[path.name]

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _ask(source, fetch)
            return
        except UnreadableError as error:
            broken = "connection" in str(error) or "no answer" in str(error)
            if attempt == _ATTEMPTS or not broken:
                raise
            time.sleep(2.0**attempt)


def _value(item: Mapping[str, Any], tag: str) -> str:
    """Return the first value of an attribute in DICOM JSON; empty if there is none."""
    try:
        value = item[tag]["Value"][0]
    except (KeyError, IndexError, TypeError):
        return ""
    return str(value.get("Alphabetic", "")) if isinstance(value, dict) else str(value)


def _manifest_rows(path: Path) -> Sequence[Mapping[str, Any]]:
    """Return the rows of a manifest; none if it is another source, which the batch reads itself."""
    try:
        if path.suffix.lower() not in (".csv", ".json") or not is_file(path) or b"://" not in path.read_bytes():
            return []
        if path.suffix.lower() == ".csv":
            return [
                {str(name): cell for name, cell in row.items()}
                for row in read_csv(path, ("case", "image")).to_dict("records")
            ]
        content = read_json(path)
        return [row for row in content if isinstance(row, dict)] if isinstance(content, list) else []
    except (OSError, ValueError, LiversegError):
        pass
    return []
