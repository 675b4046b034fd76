"""Messages from a decoder process.

A message is a header (its type, the number of bytes that follow, the frames decoded so far), and then the bytes.
"""

import struct

HEADER = struct.Struct("<cIQ")

OPEN, BLOCK, END, FAILED = b"o", b"b", b"e", b"f"
"""Types of messages, and the bytes that follow the header.

OPEN: JSON of `sample_rate` (hertz) and `declared_seconds` (or null). BLOCK: 16 kHz mono float32 samples. END: none.
FAILED: the reason, one word.
"""
