"""Voices of Festival, which says a batch of sentences for one start of its program."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from training.segments import Segment, are_spoken_as_written, word_times
from training.voice import MissingProgramError, Speech, is_plain, speech

_PAUSES = frozenset({"pau", "#", "h#", "brth"})
_BATCH = 100
"""Sentences for one start, which takes a tenth of a second."""

_FUNCTIONS = """
(define (number_tokens token number)
  (if token
      (begin
        (item.set_feat token "number" number)
        (format times "token")
        (mapcar (lambda (word) (format times " %s" (item.name word))) (item.daughters token))
        (format times "\\n")
        (number_tokens (item.next token) (+ number 1)))))

(define (say text file)
  (let ((utterance (eval (list 'Utterance 'Text text))))
    (utt.synth utterance)
    (utt.save.wave utterance file 'riff)
    (number_tokens (utt.relation.first utterance 'Token) 1)
    (mapcar
      (lambda (segment)
        (format times "segment %s %s %s\\n"
                (item.name segment)
                (item.feat segment "end")
                (item.feat segment "R:SylStructure.parent.parent.R:Token.parent.number")))
      (utt.relation.items utterance 'Segment))
    (format times "done %s\\n" file)))
"""

_STRETCH_DURATIONS = "(Parameter.set 'Duration_Stretch {stretch})"
_STRETCH_STATES = '(set! hts_engine_params (append usual_hts_engine_params (list (list "-r" {pace}))))'


@dataclass(frozen=True)
class FestivalVoice:
    """A voice that a Debian package brings for `festival`.

    Attributes:
        name: its name in the table of voices.
        model: what Festival calls it, such as "kal_diphone".
        package: the Debian package with the voice.
        delay: seconds by which the audio is later than its segments.
    """

    name: str
    model: str
    package: str
    delay: float = 0.0

    def __post_init__(self) -> None:
        if not _is_installed(self.model):
            raise MissingProgramError(f"Festival's voice {self.model}", "festival", self.package)

    def speak_many(self, sentences: Sequence[Sequence[str]], paces: Sequence[float]) -> Iterator[Speech | None]:
        """Say each sentence at its pace. See `Voice.speak_many`."""
        for first in range(0, len(sentences), _BATCH):
            yield from self._speak_batch(sentences[first : first + _BATCH], paces[first : first + _BATCH])

    def _speak_batch(self, sentences: Sequence[Sequence[str]], paces: Sequence[float]) -> Iterator[Speech | None]:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            script = directory / "say.scm"
            script.write_text(self._script(sentences, paces))
            program = ["festival", "-b", str(script)]
            ended = subprocess.run(program, cwd=directory, capture_output=True, text=True, check=False)  # noqa: S603
            if ended.returncode:
                raise RuntimeError(f"festival failed with {self.model}: {ended.stderr.strip()[-500:]}")
            records = _records((directory / "times").read_text())
            for index, words in enumerate(sentences):
                file = f"{index}.wav"
                times = _times(records[file], words) if file in records else None
                if times is None:
                    yield None
                else:
                    samples, rate = soundfile.read(directory / file, dtype="int16")
                    yield speech(samples, rate, [(start + self.delay, end + self.delay) for start, end in times])

    def _script(self, sentences: Sequence[Sequence[str]], paces: Sequence[float]) -> str:
        is_hts = self.model.endswith("_hts")
        lines = [_FUNCTIONS, f"(voice_{self.model})", '(set! times (fopen "times" "w"))']
        if is_hts:
            lines.append("(set! usual_hts_engine_params hts_engine_params)")
        for index, (words, pace) in enumerate(zip(sentences, paces, strict=True)):
            if is_plain(words):
                stretch = (_STRETCH_STATES if is_hts else _STRETCH_DURATIONS).format(pace=pace, stretch=1 / pace)
                # One sentence that Festival cannot say must not end the batch.
                lines.append(f'{stretch}\n(unwind-protect (say "{" ".join(words)}" "{index}.wav") nil)')
        return "\n".join([*lines, "(fclose times)", ""])


def _is_installed(model: str) -> bool:
    program = shutil.which("festival")
    if program is None:
        return False
    script = f"(if (not (symbol-bound? 'voice_{model})) (exit 1))"
    return subprocess.run([program, "-b", script], capture_output=True, check=False).returncode == 0  # noqa: S603


def _records(text: str) -> dict[str, list[list[str]]]:
    """Return the fields of the lines that Festival wrote about each sentence that it finished, by audio file."""
    records: dict[str, list[list[str]]] = {}
    lines: list[list[str]] = []
    for line in text.splitlines():
        fields = line.split(" ")
        if fields[0] == "done":
            records[fields[1]], lines = lines, []
        else:
            lines.append(fields)
    return records


def _times(lines: Sequence[Sequence[str]], words: Sequence[str]) -> list[tuple[float, float]] | None:
    if not are_spoken_as_written(words, [fields[1:] for fields in lines if fields[0] == "token"]):
        return None
    segments = [
        # Tokens count from 1 in Festival, where a missing feature is 0.
        Segment(fields[1], float(fields[2]), int(fields[3]) - 1 if int(fields[3]) else None)
        for fields in lines
        if fields[0] == "segment"
    ]
    return word_times(segments, len(words), _PAUSES)
