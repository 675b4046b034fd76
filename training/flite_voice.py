"""Voices of Flite, through its shared libraries: its program prints segments, but not which word each belongs to."""

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from training.segments import Segment, are_spoken_as_written, word_times
from training.voice import MissingProgramError, Speech, is_plain, speech

_PAUSES = frozenset({"pau", "ssil", "brth"})
_WORD_OF_SEGMENT = b"R:SylStructure.parent.parent"


class _Wave(ctypes.Structure):
    """`cst_wave`."""

    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _VoiceHead(ctypes.Structure):
    """The first fields of `cst_voice`."""

    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


@dataclass(frozen=True)
class FliteVoice:
    """A voice that Debian's `libflite1` brings.

    Attributes:
        name: its name in the table of voices.
        model: what Flite calls it, such as "slt".
    """

    name: str
    model: str

    def __post_init__(self) -> None:
        _load(self.model)

    def speak_many(self, sentences: Sequence[Sequence[str]], paces: Sequence[float]) -> Iterator[Speech | None]:
        """Say each sentence at its pace. See `Voice.speak_many`."""
        for words, pace in zip(sentences, paces, strict=True):
            yield self._speak(words, pace) if is_plain(words) else None

    def _speak(self, words: Sequence[str], pace: float) -> Speech | None:
        library = _library()
        voice, usual_stretch = _load(self.model)
        features = ctypes.cast(voice, ctypes.POINTER(_VoiceHead)).contents.features
        library.feat_set_float(features, b"duration_stretch", usual_stretch / pace)
        # The noise in unvoiced sounds is drawn from C's generator.
        ctypes.CDLL(None).srand(1)
        utterance = library.flite_synth_text(" ".join(words).encode(), voice)
        try:
            tokens = _items(utterance, b"Token")
            if not are_spoken_as_written(words, [_spoken(token) for token in tokens]):
                return None
            index = {token: position for position, token in enumerate(tokens)}
            segments = [_segment(item, index) for item in _items(utterance, b"Segment")]
            times = word_times(segments, len(words), _PAUSES)
            if times is None:
                return None
            wave = library.utt_wave(utterance).contents
            samples = np.ctypeslib.as_array(wave.samples, (wave.num_samples,))
            return speech(samples, wave.sample_rate, times)
        finally:
            library.delete_utterance(utterance)


def _items(utterance: int, relation: bytes) -> list[int]:
    """Return the addresses of a relation's top items, in order."""
    library = _library()
    items = []
    item = library.relation_head(library.utt_relation(utterance, relation))
    while item:
        items.append(item)
        item = library.item_next(item)
    return items


def _spoken(token: int) -> list[str]:
    """Return the words that Flite made of a token of the text."""
    library = _library()
    words = []
    word = library.item_daughter(token)
    while word:
        words.append(library.item_feat_string(word, b"name").decode())
        word = library.item_next(word)
    return words


def _segment(item: int, index: dict[int, int]) -> Segment:
    library = _library()
    word = library.path_to_item(item, _WORD_OF_SEGMENT)
    token = library.item_parent(library.item_as(word, b"Token")) if word else None
    return Segment(
        library.item_feat_string(item, b"name").decode(),
        library.item_feat_float(item, b"end"),
        index[token] if token else None,
    )


@cache
def _library() -> ctypes.CDLL:
    """Return Flite's functions, with their C types."""
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library = _open("libflite.so.1")
    for needed in ("libflite_usenglish.so.1", "libflite_cmulex.so.1"):
        _open(needed)
    for name, result, *arguments in (
        ("flite_init", ctypes.c_int),
        ("flite_synth_text", pointer, text, pointer),
        ("delete_utterance", None, pointer),
        ("utt_wave", ctypes.POINTER(_Wave), pointer),
        ("utt_relation", pointer, pointer, text),
        ("relation_head", pointer, pointer),
        ("item_next", pointer, pointer),
        ("item_daughter", pointer, pointer),
        ("item_parent", pointer, pointer),
        ("item_as", pointer, pointer, text),
        ("item_feat_string", text, pointer, text),
        ("item_feat_float", ctypes.c_float, pointer, text),
        ("path_to_item", pointer, pointer, text),
        ("feat_set_float", None, pointer, text, ctypes.c_float),
        ("get_param_float", ctypes.c_float, pointer, text, ctypes.c_float),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.flite_init()
    return library


@cache
def _load(model: str) -> tuple[int, float]:
    """Return the address of a voice, and how much it stretches durations by itself."""
    library = _library()
    register = getattr(_open(f"libflite_cmu_us_{model}.so.1"), f"register_cmu_us_{model}")
    register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    voice = register(None)
    features = ctypes.cast(voice, ctypes.POINTER(_VoiceHead)).contents.features
    return voice, library.get_param_float(features, b"duration_stretch", 1.0)


def _open(file: str) -> ctypes.CDLL:
    try:
        # The libraries of the voices look for Flite's functions among the global ones.
        return ctypes.CDLL(file, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise MissingProgramError(f"Flite's library {file}", "libflite1") from error
