"""A limit on the samples that a file may decode to, so that no small file takes minutes to decode.

The limit depends on the length of the recording and on the size of the file.
"""

# 48 kHz stereo. Up to this rate no recording is refused: a core decodes hours of it in seconds.
_SAMPLES_PER_SECOND = 96_000

# Samples per byte that are allowed for silence. FLAC has 300 (mono) to 950 (8 channels) for digital silence in blocks
# of up to 4,608 samples, as encoders write it, and 15,000 in blocks of 65,535. Audible audio has 1 or 2, and 60 in Opus
# of 6 kbit/s.
_SAMPLES_PER_BYTE_OF_SILENCE = 1_000

# Upper limit for silence: 8 channels at 192 kHz, of which a core decodes 60 seconds in half a second.
_MOST_SAMPLES_PER_SECOND = 192_000 * 8

# Samples per byte that are allowed beyond that for any audio.
_SAMPLES_PER_BYTE_OF_AUDIO = 8


class TooManySamplesError(Exception):
    """A file decodes to more samples than are allowed for its length and size."""


def is_affordable(frames: int, channels: int, rate: int, size: int) -> bool:
    """Return whether a file may decode to this many samples.

    Args:
        frames: Number of samples of each channel.
        channels: Number of channels.
        rate: Sample rate in hertz.
        size: Size of the file in bytes.
    """
    seconds = frames / rate
    silence = min(size * _SAMPLES_PER_BYTE_OF_SILENCE, seconds * _MOST_SAMPLES_PER_SECOND)
    return frames * channels <= seconds * _SAMPLES_PER_SECOND + silence + size * _SAMPLES_PER_BYTE_OF_AUDIO
