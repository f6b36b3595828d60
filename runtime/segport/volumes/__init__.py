"""Volumes in, the same geometry out: NIfTI files and DICOM series. What needs the extra `medical` is imported late."""
