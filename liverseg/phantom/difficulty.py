"""Every number that decides how hard the phantoms are, in one place.

benchmarks/phantom_difficulty.py measures what they lead to: how well mean HU and volume tell the type, how many lesions
hide in the noise, how the types are shared out. Change a number here, run it, and write the result to docs/phantom.md.
Ranges are (low, high) of a uniform draw unless said otherwise; HU and mm.
"""

from __future__ import annotations

RECIPE = 5
"""Number of the recipe: raised whenever the same seed gives other bytes, so old files are never taken for new."""

# --- liver and scanner -----------------------------------------------------------------------------------------------
LIVER_HU = (109.0, 8.0)  # mean and standard deviation between patients without fatty change
FATTY_SHARE = 0.28  # patients with a fatty liver
FATTY_DROP = (14.0, 42.0)  # how much darker it is
VESSEL_HU = (163.0, 9.0)  # portal and hepatic veins: mean and standard deviation between patients
LIVER_TEXTURE = 2.2  # standard deviation of the parenchyma's own variation
NOISE_HU = (13.0, 0.32)  # noise standard deviation: median and log standard deviation ...
NOISE_LIMITS = (8.0, 25.0)  # ... cut here
THICKNESS = ((1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0), (0.06, 0.08, 0.10, 0.16, 0.20, 0.16, 0.10, 0.14))  # mm, shares

# --- lesions in number, size and place -------------------------------------------------------------------------------
DIAMETER = {"cyst": (15.0, 0.48), "hemangioma": (18.0, 0.46), "metastasis": (18.0, 0.44)}  # median mm, log SD
DIAMETER_LIMITS = (6.0, 60.0)
COUNT = {
    "cyst": (0.40, 0.30, 0.15, 0.10, 0.05),
    "hemangioma": (0.45, 0.30, 0.15, 0.10),
    "metastasis": (0.28, 0.27, 0.2, 0.15, 0.10),
}
"""Chance of 1, 2, ... lesions of the patient's main type."""
PATIENT_TYPES = {"cyst": 0.36, "hemangioma": 0.36, "metastasis": 0.28}  # main type; metastases come in greater number
MIXED_SHARE = 0.20  # patients who have one or two lesions of another type as well

# --- cyst ------------------------------------------------------------------------------------------------------------
CYST_HU = (0.0, 20.0)
CYST_THICK_SHARE = 0.18  # protein or old blood in it
CYST_THICK_HU = (20.0, 45.0)
CYST_LOBULATED_SHARE = 0.35

# --- hemangioma ------------------------------------------------------------------------------------------------------
FILLED_BELOW = 15.0  # mm: smaller ones are wholly bright ...
FILLED_SHARE = 0.75  # ... with this chance
FILLED_LEVEL = (0.72, 0.98)  # share of the way from liver to vessel
POOL_DROP = (28.0, 70.0)  # how much darker than liver the unfilled centre is
NODULE_LEVEL = (0.80, 1.05)  # nodules: share of the way from liver to vessel
NODULES = (5, 11)
NODULE_RADIUS = (0.20, 0.36)  # share of the lesion's radius

# --- metastasis ------------------------------------------------------------------------------------------------------
METASTASIS_HU = (40.0, 90.0)
METASTASIS_BELOW_LIVER = 18.0  # its centre is at least so much darker than the liver
NECROTIC_SHARE = 0.36
NECROTIC_HU = (10.0, 30.0)
HYPERVASCULAR_SHARE = 0.10
HYPERVASCULAR_RISE = (14.0, 38.0)  # its rim above the liver
RIM_SHARE = 0.80
RIM_ABOVE_LIVER = (-30.0, 8.0)
RIM_WIDTH = (0.18, 0.38)  # share of the radius
MARGIN = (2.0, 5.5)  # mm over which it fades into the liver
METASTASIS_TEXTURE = 7.0
