"""NeMo's parts that the worker uses, imported without the chatter. Nothing else imports NeMo.

Importing this module takes seconds, so it is imported where a model is first needed.
"""

import logging

# NeMo's telemetry is off unless its user configures it, and says so on every import.
logging.getLogger("nv_one_logger").setLevel(logging.ERROR)

from nemo.collections.asr.models import EncDecRNNTBPEModel  # noqa: E402
from nemo.utils import logging as nemo_logging  # noqa: E402

# INFO tells of each module as it is built. Warnings still reach the terminal.
nemo_logging.setLevel(nemo_logging.WARNING)

__all__ = ["EncDecRNNTBPEModel"]
