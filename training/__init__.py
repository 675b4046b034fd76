"""How the embedded model is made: text, speech, training, measuring."""

import os

# ONNX Runtime computes hibari's voice. Unless this is set before it is imported, it sends usage data to Microsoft, and
# the thread for that now and then draws from C's random generator, from which Flite draws its noise.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
