"""Read the contrast phase of a CT series from its header: names in several languages, and the time of the injection."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from liverseg.imageio.dicom_header import Slice

__all__ = ["PHASES", "phase_of_header"]

PHASES = ("portal", "arterial", "delayed", "native")

_LATE_ARTERIAL = r"(?:late|spat|tardi\w+|pozn\w+|поздн\w+)[\s_-]*art\w*|art\w*[\s_-]*(?:late|spat|tardi\w+|pozn\w+)"
_BOTH = (
    r"(?:with|mit|avec|con|met|w)[\s_/-]*(?:and|und|et|e|y|en|or)?[\s_/-]*(?:without|ohne|sans|senza|sin|zonder|w o)\b"
)
_SECONDS = r"(?<![\d.,])(\d{2,3}) ?(?:s|sec|sek)\b"
_BEGINNINGS = {
    "portal": (
        *(
            "portal",
            "portov",
            "porto ven",
            "portoven",
            "pfortader",
            "hepatic ven",
            "venous",
            "venos",
            "veneu",
            "veneux",
        ),
        *(
            "veinos",
            "veineu",
            "venoz",
            "zyln",
            "wrotn",
            "портал",
            "портов",
            "венозн",
            "门脉",
            "門脈",
            "门静脉",
            "門靜脈",
        ),
        *("静脉期", "靜脈期", "静脈相", "문맥", "정맥"),
    ),
    "arterial": (*("arteri", "aretr", "tetnic", "angio", "артери", "动脉", "動脈", "동맥"),),
    "delayed": (
        *(
            "delay",
            "late ",
            "spat",
            "tardi",
            "equilib",
            "gleichgewicht",
            "excret",
            "ausscheid",
            "pozn",
            "opozn",
            "отсроч",
        ),
        *("отложен", "поздн", "выделит", "延迟", "延遲", "遅延", "平衡", "排泄", "지연", "평형"),
    ),
    "native": (
        *(
            "nativ",
            "natyw",
            "unenhanced",
            "non contrast",
            "noncontrast",
            "no contrast",
            "without contrast",
            "sin contr",
        ),
        *("senza m", "senza contr", "sans inj", "sans contr", "sans iv", "ohne km", "ohne kontrast", "bez kontrast"),
        *(
            "bez k",
            "precontrast",
            "pre contrast",
            "plain",
            "blanco",
            "fase basal",
            "w o contrast",
            "натив",
            "без контр",
        ),
        *("平扫", "平掃", "単純", "單純", "非造影", "조영전", "비조영"),
    ),
}
"""Beginnings of words, without accents. Chinese, Japanese and Korean words may stand within others."""
_WORDS = {
    "portal": {"pv", "pvp", "ven", "porto", "vp"},
    "arterial": {"art", "hap", "eap", "lap", "cta"},
    "delayed": {"late"},
    "native": {"nat", "ncct", "nc", "nect"},
}
_DELAYS = {"arterial": (15.0, 45.0), "portal": (55.0, 110.0), "delayed": (150.0, 1800.0)}
"""Seconds from the start of the injection to the acquisition: usual protocols of the liver; between them is unknown."""
_DAY_SECONDS = 86400.0
_NO_AGENT = ("none", "no", "without", "nativ", "ohne", "sans", "0")


def phase_of_header(slices: Sequence[Slice]) -> str | None:
    """Return the phase that the header states, one of `PHASES`; None if it states none or several.

    The description of the series is read first, then the name of its protocol, then the times of injection and
    acquisition. A protocol's name often lists all phases of a study.

    Args:
        slices: of a stack.
    """
    first = slices[0]
    for text in (first.description, first.protocol):
        named = _named_phases(text)
        if len(named) == 1:
            return next(iter(named))
        if named:
            return None
        if delay := re.search(_SECONDS, text.casefold()):
            return _phase_of_delay(float(delay[1]))
    if first.contrast_agent is not None and first.contrast_agent.casefold().startswith(_NO_AGENT):
        return "native"
    times = [item.times["AcquisitionTime"] for item in slices if "AcquisitionTime" in item.times]
    if not times or np.isnan(first.contrast_start):
        return None
    # of a stack that passes midnight as of others: an acquisition before the injection stays outside all delays
    delays = [(time - first.contrast_start) % _DAY_SECONDS for time in times]
    return _phase_of_delay(float(np.median(delays)))


def _phase_of_delay(seconds: float) -> str | None:
    return next((phase for phase, (low, high) in _DELAYS.items() if low <= seconds <= high), None)


def _named_phases(text: str) -> set[str]:
    plain = unicodedata.normalize("NFKD", text.casefold().replace("ł", "l").replace("ø", "o"))
    plain = "".join(char for char in plain if not unicodedata.combining(char) or char > "\u0400")
    plain = unicodedata.normalize("NFC", plain)
    found = set()
    if re.search(_LATE_ARTERIAL, plain):
        found.add("arterial")
        plain = re.sub(_LATE_ARTERIAL, " ", plain)
    words = re.sub(_BOTH, " ", re.sub(r"[\W_]+", " ", plain))
    for phase, beginnings in _BEGINNINGS.items():
        for beginning in beginnings:
            within = beginning[0] > "\u2e80"
            if re.search(("" if within else r"(?:^| )") + re.escape(beginning), words + " "):
                found.add(phase)
    for word in words.split():
        found |= {phase for phase, known in _WORDS.items() if re.sub(r"\d+$", "", word) in known}
    return found
