"""Volumes in, the same geometry out: NIfTI files and DICOM series. Needs the extra `medical`; imported when asked for."""
