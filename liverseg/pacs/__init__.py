"""A DICOM node that receives studies, computes them and sends the results; DICOMweb."""
