"""No small file costs much: what silence unpacks to is bounded, and a quiet recording is taken."""

from parakeet_worker.audio.formats.budget import is_affordable


def test_sound_is_always_affordable() -> None:
    for rate, channels in ((192_000, 8), (768_000, 2), (44_100, 6)):
        assert is_affordable(rate * 3_600, channels, rate, rate * 3_600 * channels // 4)
    assert is_affordable(600 * 48_000, 64, 48_000, 600 * 48_000 * 64 * 2)
    assert is_affordable(4 * 3_600 * 48_000, 2, 48_000, 0)
    assert not is_affordable(600 * 655_350, 8, 655_350, 213_000)
    assert not is_affordable(600 * 655_350, 8, 655_350, 3_484_000)
