"""Parameters that determine how difficult the phantoms are; those of the lesions are in `liverseg.synthesis`.

benchmarks/phantom_difficulty.py measures the effect: how well mean HU and volume predict the type, how many lesions are
lost in noise, and the distribution of types. Run it after a change here, and write the result to docs/phantom.md.
Ranges are (low, high) of a uniform distribution unless noted otherwise, in HU and mm.
"""

from __future__ import annotations

RECIPE = 8
"""Increased whenever the same seed gives other bytes, so that old files are not reused."""

# --- liver and scanner -----------------------------------------------------------------------------------------------
LIVER_HU = (109.0, 8.0)  # mean and standard deviation between patients without fatty change
FATTY_SHARE = 0.28  # patients with a fatty liver
FATTY_DROP = (14.0, 42.0)  # reduction of its attenuation
VESSEL_HU = (163.0, 9.0)  # portal and hepatic veins: mean and standard deviation between patients
LIVER_TEXTURE = 2.2  # standard deviation of the parenchyma's texture
NOISE_HU = (13.0, 0.32)  # noise standard deviation: median and log standard deviation ...
NOISE_LIMITS = (8.0, 25.0)  # ... and limits
THICKNESS = ((1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0), (0.06, 0.08, 0.10, 0.16, 0.20, 0.16, 0.10, 0.14))  # mm, shares

# --- patients --------------------------------------------------------------------------------------------------------
PATIENT_TYPES = {"cyst": 1 / 3, "hemangioma": 1 / 3, "metastasis": 1 / 3}  # type of the first lesion
