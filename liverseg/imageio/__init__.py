"""CTs and label maps on disk: NIfTI, DICOM and zips, read into one `Volume`."""
