"""The report page of a run: a folder of HTML, pictures and one script that a browser opens by double click, offline.

What a patient's pages show is in `view.py`, where it comes from for slices on the disk in `slices.py`. `writer.py`
writes it, `later.py` finds what is needed for that in an output folder. Imported only when a report is asked for.
"""
