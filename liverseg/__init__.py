"""liverseg: focal liver lesions on CT, outlined and typed (cyst, hemangioma, metastasis).

Research software, not a medical device.
"""

__version__ = "0.1.0"
