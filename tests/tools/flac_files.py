"""FLAC files of silence that no encoder would take the time for (RFC 9639)."""

import struct

BLOCK = 65_535


def silence(seconds: float, rate: int, channels: int, *, is_declared: bool = True, block: int = BLOCK) -> bytes:
    """A FLAC file of 16-bit silence: frames of some tens of bytes, of up to 65,535 samples of each channel."""
    blocks = round(seconds * rate / block)
    numbers = rate << 44 | (channels - 1) << 41 | 15 << 36 | (blocks * block if is_declared else 0)
    info = struct.pack(">HH", block, block) + bytes(6) + numbers.to_bytes(8, "big") + bytes(16)
    start = b"fLaC\x80\x00\x00\x22" + info
    return start + b"".join(_frame(index, channels, block) for index in range(blocks))


def _frame(number: int, channels: int, block: int) -> bytes:
    # Block size in 16 bits behind the number, sample rate and depth as in STREAMINFO.
    header = b"\xff\xf8\x70" + bytes([(channels - 1) << 4]) + _coded(number) + struct.pack(">H", block - 1)
    header += bytes([_crc(header, 8, 0x07)])
    frame = header + bytes(3) * channels  # each constant, and zero
    return frame + _crc(frame, 16, 0x8005).to_bytes(2, "big")


def _coded(number: int) -> bytes:
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    value, top = 0, 1 << (bits - 1)
    for byte in data:
        value ^= byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & ((1 << bits) - 1)
    return value
