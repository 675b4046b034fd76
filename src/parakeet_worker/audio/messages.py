"""What the process that decodes containers sends: a header (kind, bytes that follow, frames so far) and bytes."""

import struct

HEADER = struct.Struct("<cIQ")

OPEN, BLOCK, END, FAILED = b"o", b"b", b"e", b"f"
"""JSON of what is known at the start; samples; nothing; the reason, a word."""
