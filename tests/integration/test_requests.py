"""Requests of any form, through the real worker."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broken_requests import BROKEN
from parakeet_worker.job.request import SCHEMA_DIR
from project import TEXT

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELD = st.sampled_from(["action", "audio_url", "timestamps", "language", "Audio_URL"])
# Whatever looks like a URL is malformed in a way that needs no network to see.
URLS = st.sampled_from(
    ["http:", "https://", "data:", "http://[", "http://h:99999/", "http://h:x/", "data:,", "HTTPS:///"]
)


@settings(max_examples=400)
@given(st.one_of(JSON, st.fixed_dictionaries({"input": st.one_of(JSON, st.dictionaries(FIELD, JSON | URLS))})))
def test_whatever_comes_gets_an_envelope(ask: Any, job: Any) -> None:
    answer = ask(job)
    assert answer["status"] == "error" or job["input"] == job["input"] | {"action": "model_info"}


def test_the_next_good_request_works(ask: Any) -> None:
    for job, _, _ in BROKEN:
        ask(job)
    assert ask({"input": {"action": "model_info"}})["status"] == "success"
    answer = ask(json.loads((SCHEMA_DIR.parent / "test_input.json").read_text()))
    assert answer["text"] == TEXT
