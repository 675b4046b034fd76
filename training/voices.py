"""All voices by name: that of hibari-tts and those of Debian's packages."""

from training.debian_voices import VOICES
from training.plan import FIRST_VOICE
from training.voice import Voice


def voice(name: str) -> Voice:
    """Return the voice of that name.

    Raises:
        KeyError: There is no such voice.
        MissingProgramError: The voice is not installed.
    """
    if name == FIRST_VOICE:
        from training.hibari_voice import HibariVoice

        return HibariVoice()
    return VOICES[name]()
