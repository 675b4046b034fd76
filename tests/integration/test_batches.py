"""Batches of real speech, by the real model."""

import asyncio
from typing import Any

import soundfile

from audio_files import tone
from parakeet_worker.asr.scheduler import Scheduler
from project import Clip
from recognizers import transcribe


def test_batches_of_real_speech_give_what_each_clip_gives_alone(recognizer: Any, clips: list[Clip]) -> None:
    engine = Scheduler(lambda: recognizer)
    signals = [soundfile.read(clip.path, dtype="float32")[0] for clip in clips]

    async def together() -> Any:
        return await asyncio.gather(*[transcribe(engine, [engine.stage(signal)]) for signal in signals])

    together_ = [hypotheses[0].text for hypotheses in asyncio.run(together())]
    assert together_ == [recognizer.transcribe([signal])[0].text for signal in signals]
    assert engine.stats.batches < len(clips) / 3
    assert asyncio.run(transcribe(engine, [tone(1.0)])) == recognizer.transcribe([tone(1.0)])
