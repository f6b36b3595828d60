"""Files that are almost pictures, and what reads them in child processes."""

import segport as segport  # before OpenCV: it sets what OpenCV reads when it is loaded
