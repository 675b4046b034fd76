"""Transcribe files or URLs: `python example.py talk.mp3 https://example.com/audio.wav`.

`ENDPOINT_ID` and `RUNPOD_API_KEY` must be set.
"""

import os
import sys

from parakeet_client import Client, TranscriptionError

sources = sys.argv[1:]
with Client(os.environ["ENDPOINT_ID"]) as client:
    transcript = client.transcribe(
        sources[0],
        timestamps=["word"],
        captions="srt",
        confidence=True,
        keyterms=["Parakeet", {"term": "RTFx", "boost": 1.25}],
    )
    print(transcript.text)
    print(transcript.captions)
    for word in transcript.words or ():
        print(word.start, word.end, word.confidence, word.text)

    results = client.transcribe_many(sources, progress=True)
    for source, result in zip(sources, results, strict=True):
        if isinstance(result, TranscriptionError):
            print(f"{source}: {result.code}: {result.message}")
        else:
            print(f"{source}: {result.text}")
