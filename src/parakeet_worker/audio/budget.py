"""How much decoding a file may cost: in proportion to its length and its size, so that no small file costs minutes."""

# 48 kHz stereo. A recording of that form or less is never refused, whatever its bytes: a core decodes hours in seconds.
_SAMPLES_PER_SECOND = 96_000

# Digital silence takes a byte for 300 (mono) to 950 samples (8 channels) in FLAC as encoders write it, in blocks of at
# most 4,608. Sound takes one for 1 or 2, and for 60 where it is Opus of 6 kbit/s. Blocks of 65,535 take one for 15,000.
_SAMPLES_PER_BYTE = 1_000

# But no more than 192 kHz of 8 channels, of which a core decodes 60 seconds in half a second.
_MOST_SAMPLES_PER_SECOND = 192_000 * 8

# Sound of any form is at least a byte for so many.
_SAMPLES_PER_BYTE_OF_SOUND = 8


class TooMuchWork(Exception):  # noqa: N818 - what was found, not a mistake
    """A file has more samples than one of its size may have."""


def is_affordable(frames: int, channels: int, rate: int, size: int) -> bool:
    """Return whether so much may be decoded.

    Args:
        frames: Samples of each channel.
        channels: How many there are.
        rate: Samples of a channel in a second.
        size: Of the file, in bytes.
    """
    seconds = frames / rate
    silence = min(size * _SAMPLES_PER_BYTE, seconds * _MOST_SAMPLES_PER_SECOND)
    return frames * channels <= seconds * _SAMPLES_PER_SECOND + silence + size * _SAMPLES_PER_BYTE_OF_SOUND
