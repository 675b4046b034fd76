"""A transcript as a file of captions: SubRip (`.srt`) or WebVTT (`.vtt`)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Literal

from parakeet_worker.asr.alignment import Span
from parakeet_worker.job.cues import Cue, CueLimits, make_cues

# In SubRip nothing can be escaped, and a reader that looks for times in every line would begin a cue here.
_TIMES = re.compile(r"(?<=\d)(\s*-)(->\s*)(?=\d)")
_WORD_JOINER = "\u2060"  # not visible


@dataclass(frozen=True)
class CaptionOptions(CueLimits):
    """What captions a caller asks for.

    Attributes:
        format: The format of the file.
    """

    format: Literal["srt", "vtt"] = field(kw_only=True)


def captions(words: Sequence[Span], duration: float, options: CaptionOptions) -> str:
    """Return a file of captions for a transcript.

    Args:
        words: The transcript, split at spaces, in order.
        duration: Length of the audio in seconds.
        options: The format, and the limits of the cues.

    Returns:
        The file's text. Without words, that of a file without cues, which is empty for SubRip.
    """
    return write_captions(make_cues(words, duration, options), options.format)


def write_captions(cues: Sequence[Cue], file_format: Literal["srt", "vtt"]) -> str:
    """Return a file of captions.

    Args:
        cues: The cues, in order.
        file_format: The format of the file.
    """
    # Imported here, as a worker starts in less time than this import takes.
    from webvtt import Caption, WebVTT

    class PlainCaption(Caption):
        """A caption whose text has no markup: the library would leave out of SubRip what looks like a tag."""

        text = Caption.raw_text

    escape = _escape_vtt if file_format == "vtt" else _escape_srt
    file = StringIO()
    WebVTT(
        captions=[PlainCaption(_timestamp(cue.start), _timestamp(cue.end), [*map(escape, cue.lines)]) for cue in cues]
    ).write(file, format=file_format)
    text = file.getvalue()
    return f"{text}\n" if text and not text.endswith("\n") else text


def _escape_vtt(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _escape_srt(line: str) -> str:
    return _TIMES.sub(rf"\1{_WORD_JOINER}\2", line) if "-->" in line else line


def _timestamp(seconds: float) -> str:
    """Return a time as WebVTT writes it, to the millisecond."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"
