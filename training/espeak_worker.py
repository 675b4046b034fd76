"""Says sentences with eSpeak NG's library. Run by `espeak_voice.py`; it imports only what starts fast.

The program `espeak-ng` gives no times, so it has to be the library. That keeps state from sentence to sentence, such as
the phase of a vowel's waves: each sentence gets a process of its own, so that it sounds the same after any other.

Standard input is one JSON object: `{"voice": …, "sentences": [{"text": …, "pace": …}, …]}`. In the current folder each
sentence leaves `<index>.wav` and `<index>.json`: an array of `[kind, position, sample, phoneme]`, one for each event.
"""

import ctypes
import json
import os
import sys
import wave
from pathlib import Path

LIBRARY = "libespeak-ng.so.1"
WORD, PHONEME = 1, 7
"""Kinds of events: a word starts, a phoneme starts."""

_USUAL_RATE = 175
"""Words per minute."""

_SYNCHRONOUS = 2
_PHONEME_EVENTS = 1
_RATE = 1
_POSITION_IS_CHARACTER = 1
_UTF8 = 1


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """`espeak_EVENT`."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


def say(voice: str, text: str, pace: float, name: str) -> None:
    """Write the audio and the events of one sentence to `<name>.wav` and `<name>.json`."""
    library = ctypes.CDLL(LIBRARY)
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
    pieces: list[bytes] = []
    events: list[tuple[int, int, int, str]] = []

    def take(samples: int | None, count: int, heard: "ctypes._Pointer[_Event]") -> int:
        if samples and count:
            pieces.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while heard[index].type:
            event = heard[index]
            # A word of no letters stands for nothing in the text.
            if event.type == PHONEME or (event.type == WORD and event.length):
                phoneme = event.id.string.decode() if event.type == PHONEME else ""
                events.append((event.type, event.text_position, event.sample, phoneme))
            index += 1
        return 0

    callback = _Callback(take)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()):
        raise ValueError(f"eSpeak NG has no voice {voice}")
    library.espeak_SetParameter(_RATE, round(_USUAL_RATE * pace), 0)
    data = text.encode()
    library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, _POSITION_IS_CHARACTER, 0, _UTF8, None, None)
    with wave.open(f"{name}.wav", "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(b"".join(pieces))
    Path(f"{name}.json").write_text(json.dumps(events))


def main() -> None:
    """Say the sentences that standard input asks for."""
    asked = json.load(sys.stdin)
    for index, sentence in enumerate(asked["sentences"]):
        child = os.fork()
        if not child:
            try:
                say(asked["voice"], sentence["text"], sentence["pace"], str(index))
            except ValueError as error:
                sys.exit(str(error))
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(1)


if __name__ == "__main__":
    main()
