"""The voices of Debian's packages.

| voices             | Debian packages                         | licence of the voice                               |
|--------------------|-----------------------------------------|----------------------------------------------------|
| `flite-…`          | `libflite1`                             | permissive, Carnegie Mellon University             |
| `festival-kal`     | `festival`, `festvox-kallpc16k`         | permissive, University of Edinburgh                |
| `festival-ked`     | `festival`, `festvox-kdlpc16k`          | permissive, Alan W Black and Kevin Lenzo           |
| `festival-slt-hts` | `festival`, `festvox-us-slt-hts`        | permissive, Carnegie Mellon University and others  |
| `espeak-…`         | `libespeak-ng1`, `espeak-ng-data`       | GPL 3 or later: program and data, not their speech |

None forbids commercial use. MBROLA's voices do, so none of them is here.

Two pairs are one person's voice: `flite-kal16` with `festival-kal`, and `flite-slt` with `festival-slt-hts`.
A voice that training is not to hear must not have its other half there.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from training.espeak_voice import EspeakVoice
from training.festival_voice import FestivalVoice
from training.flite_voice import FliteVoice
from training.voice import Voice

_FLITE = ("awb", "kal16", "rms", "slt")
_FESTIVAL = {
    "kal": ("kal_diphone", "festvox-kallpc16k", 0.0),
    "ked": ("ked_diphone", "festvox-kdlpc16k", 0.0),
    # Measured: its first vowels are heard 10 ms after they should start.
    "slt-hts": ("cmu_us_slt_arctic_hts", "festvox-us-slt-hts", 0.01),
}
_ESPEAK_ACCENTS = {
    "en-us": "en-US",
    "en-us-nyc": "en-US-nyc",
    "en-gb": "en",
    "en-gb-rp": "en-GB-x-rp",
    "en-gb-lancaster": "en-GB-x-gbclan",
    "en-gb-westmidlands": "en-GB-x-gbcwmd",
    "en-gb-scotland": "en-GB-scotland",
    "en-caribbean": "en-029",
}
_ESPEAK_VARIANTS = (*(f"m{number}" for number in range(1, 9)), *(f"f{number}" for number in range(1, 6)))


def _voices() -> dict[str, Callable[[], Voice]]:
    voices: dict[str, Callable[[], Voice]] = {}
    for model in _FLITE:
        voices[f"flite-{model}"] = partial(FliteVoice, f"flite-{model}", model)
    for short, settings in _FESTIVAL.items():
        voices[f"festival-{short}"] = partial(FestivalVoice, f"festival-{short}", *settings)
    for accent, file in _ESPEAK_ACCENTS.items():
        voices[f"espeak-{accent}"] = partial(EspeakVoice, f"espeak-{accent}", f"gmw/{file}")
        for variant in _ESPEAK_VARIANTS:
            name = f"espeak-{accent}-{variant}"
            voices[name] = partial(EspeakVoice, name, f"gmw/{file}+{variant}")
    return voices


VOICES: Mapping[str, Callable[[], Voice]] = MappingProxyType(_voices())
"""What makes each voice, by name. It raises MissingProgramError where the voice is not installed."""
