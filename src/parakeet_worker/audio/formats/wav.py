"""Checking and repairing headers of WAV files where libsndfile reports no error: truncated files, sizes of zero.

Chunks: Multimedia Programming Interface and Data Specifications 1.0 (1991). RF64 and its `ds64` chunk: EBU Tech 3306.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from parakeet_worker.exhaustion import explain_full_disk

# Codecs that libsndfile decodes, by their tags in the `fmt ` chunk: PCM, MS ADPCM, IEEE float, A-law, mu-law, IMA
# ADPCM, GSM 6.10, and WAVE_FORMAT_EXTENSIBLE.
_CODECS = frozenset({0x0001, 0x0002, 0x0003, 0x0006, 0x0007, 0x0011, 0x0031, 0xFFFE})

# A program that writes to a pipe cannot go back to fill in the size, and leaves zero or a value near the maximum.
_UNKNOWN_FROM = 0x7FFFF000

# Files have some tens of chunks. A crafted file of chunks only would keep a thread busy for a minute.
_MAX_CHUNKS = 10_000


@dataclass(frozen=True)
class WavHeader:
    """The header of a WAV file. Positions are in bytes from the start of the file.

    Attributes:
        is_codec_known: Whether libsndfile decodes the codec.
        size_position: Position of the size field of the `data` chunk, or -1 if there is no such chunk.
        declared_end: End of the samples according to the header, or 0 if it does not declare their size.
        file_end: End of the file.
    """

    is_codec_known: bool
    size_position: int
    declared_end: int
    file_end: int

    @property
    def is_truncated(self) -> bool:
        """Whether the file is shorter than its header declares."""
        return self.declared_end > self.file_end


def read_header(file: BinaryIO) -> WavHeader | None:
    """Return the header of a WAV file, or None if it is no WAV file. The file's position is undefined afterwards."""
    file_end = file.seek(0, 2)
    file.seek(0)
    magic, _, form = file.read(4), file.read(4), file.read(4)
    if magic not in (b"RIFF", b"RIFX", b"RF64") or form != b"WAVE":
        return None
    order = ">" if magic == b"RIFX" else "<"
    is_codec_known = True
    long_size = 0
    position = 12
    for _ in range(_MAX_CHUNKS):
        if position + 8 > file_end:
            break
        file.seek(position)
        name, size = struct.unpack(f"{order}4sI", file.read(8))
        content = position + 8
        if name == b"ds64" and file_end >= content + 16:
            file.seek(content + 8)
            (long_size,) = struct.unpack("<Q", file.read(8))
        elif name == b"fmt " and file_end >= content + 2:
            is_codec_known = struct.unpack(f"{order}H", file.read(2))[0] in _CODECS
        elif name == b"data":
            length = long_size if size == 0xFFFFFFFF and long_size else size
            is_unknown = size == 0 or (length == size and size >= _UNKNOWN_FROM)
            return WavHeader(is_codec_known, position + 4, 0 if is_unknown else content + length, file_end)
        position = content + size + size % 2
    return WavHeader(is_codec_known, -1, 0, file_end)


def mend_size(file: BinaryIO, header: WavHeader) -> None:
    """Replace a size of zero in the header by the maximum, if samples follow it.

    libsndfile reads no samples if the size is zero. It reads to the end of the file if the size is the maximum.

    Args:
        file: The file, writable. Its position is undefined afterwards.
        header: Its header.

    Raises:
        JobError: The disk is full.
    """
    samples_follow = header.size_position >= 0 and header.file_end > header.size_position + 4
    if samples_follow and header.declared_end == 0:
        with explain_full_disk():
            file.seek(header.size_position)
            file.write(b"\xff\xff\xff\xff")
            file.flush()
