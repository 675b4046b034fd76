import json
import os
from pathlib import Path

import pytest

from parakeet_worker.model.card import Card
from parakeet_worker.settings import REPOSITORY
from training import held_out
from training.measure import MeasureError, Recordings, main, measure
from training.measures import SILENCE, SINGLE, Measures, as_json, as_text, rows
from training.plan import FIRST_VOICE, HELD_OUT_VOICE

MODEL = REPOSITORY / "models" / "parakeet-tdt-mini"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measures:
    folder = tmp_path_factory.mktemp("recordings")
    clips = held_out.read_clips(REPOSITORY / "tests" / "speech" / "clips.jsonl", FIRST_VOICE)
    joined = held_out.join(clips, 60, seed=1)
    silent = held_out.empty_recordings(seed=1, seconds=4)[SILENCE]
    recordings = Recordings(
        clips={SINGLE: held_out.write_utterances("clip", clips, folder)},
        voices={HELD_OUT_VOICE: held_out.write_utterances("voice", clips[:2], folder)},
        joined=[(held_out.write_utterance("joined", joined.recording, folder), joined.order)],
        empty={SILENCE: (silent, held_out.write_utterance("silence", silent, folder))},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARAKEET_PASS_SECONDS", "10")
        patch.setenv("PARAKEET_MODEL", str(MODEL))
        before = os.environ.get("RUNPOD_LOG_LEVEL")
        found = measure(MODEL, recordings, lambda _: None)
        # The worker in this process is told by the environment to be quiet, and others must not be.
        assert os.environ.get("RUNPOD_LOG_LEVEL") == before
        return found


def test_the_worker_is_measured_with_the_windows_of_the_card(measured: Measures) -> None:
    assert measured.windows == Card.read(MODEL).windows
    assert measured.fields["model"] == "parakeet-tdt-mini"
    assert 60 / measured.windows[1] - 1 <= measured.joined.seams <= 60 / measured.windows[0]
    assert 0 < measured.joined.words_near <= measured.joined.words
    assert measured.hours == pytest.approx(1 / 60, rel=0.1)


def test_clips_are_heard(measured: Measures) -> None:
    assert measured.clips[SINGLE].errors.words == 285
    assert measured.clips[SINGLE].percent < 10
    # Only how often each clip is joined makes a difference.
    assert 100 * measured.joined.alone == pytest.approx(measured.clips[SINGLE].percent, abs=3)


def test_joined_clips_are_heard_in_their_places(measured: Measures) -> None:
    assert measured.joined.joined < 0.5
    assert measured.timing
    assert measured.timing.matched > 0.5 * measured.timing.words
    assert measured.timing.start_median < 60


def test_the_worker_invents_nothing_in_silence(measured: Measures) -> None:
    assert measured.invented[SILENCE].worker == 0


def test_measures_make_a_table_and_json(measured: Measures) -> None:
    single = f"{measured.clips[SINGLE].percent:.2f} ("
    assert single in as_text([measured], rows([measured], HELD_OUT_VOICE)).splitlines()[1]
    assert json.loads(json.dumps(as_json(measured)))["clips"][SINGLE]["words"] == 285


def test_what_cannot_be_measured_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(MODEL), "--corpus", str(tmp_path)]) == 2
    assert "held-out-hibari.pcm cannot be used: No such file or directory" in capsys.readouterr().err
    with pytest.raises(MeasureError, match="is not the directory of a baked model"):
        measure(tmp_path, Recordings({}, {}, [], {}), lambda _: None)
