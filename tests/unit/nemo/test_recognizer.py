"""NeMo's recognizer: CUDA graphs that fail, and errors of the device."""

from typing import Any

import pytest
import soundfile

from parakeet_worker.nemo.recognizer import is_cuda_error
from project import Clip


def test_decoding_goes_on_without_graphs_when_they_fail(
    recognizer: Any, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's faults cannot be had here: the first decoding fails as a captured graph would."""
    signal = soundfile.read(clips[1].path, dtype="float32")[0]
    expected = recognizer.transcribe([signal])
    decoding = recognizer.model.decoding
    decode = decoding.rnnt_decoder_predictions_tensor
    calls = []

    def fail_once(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("CUDA graph replay failed")
        return decode(*args, **kwargs)

    monkeypatch.setattr(decoding, "rnnt_decoder_predictions_tensor", fail_once)
    monkeypatch.setattr(decoding.decoding, "disable_cuda_graphs", lambda: True)
    assert recognizer.transcribe([signal]) == expected
    calls.clear()
    monkeypatch.setattr(decoding.decoding, "disable_cuda_graphs", lambda: False)
    with pytest.raises(RuntimeError, match="graph"):
        recognizer.transcribe([signal])


def test_cuda_errors_are_told_from_others() -> None:
    assert is_cuda_error(RuntimeError("CUDA error: an illegal memory access was encountered"))
    assert not is_cuda_error(RuntimeError("The size of tensor a must match the size of tensor b"))
