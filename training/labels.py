"""What a transducer should say at each encoder frame, from the times of the words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.recordings import Recording

FRAME = 0.08  # seconds of one encoder frame, which stands for eight frames of features
_HOP = 160  # samples from one frame of features to the next: 10 ms
LONGEST_STEP = 4  # frames: the largest of the durations 0, 1, 2, 3, 4


class Tokenizer(Protocol):
    """What is needed of SentencePiece's processor."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        ...

    def id_to_piece(self, token: int) -> str:
        """Return the text of a token, with the mark of a word's start."""
        ...


@dataclass(frozen=True)
class Steps:
    """The decisions of a transducer on its way through a recording.

    Attributes:
        tokens: The tokens of the recording, int64, shape [tokens].
        frame: The encoder frame of each decision, int64, shape [decisions].
        said: How many tokens have been said before it, int64, shape [decisions].
        label: What is said then, int64, shape [decisions]: a token or the blank.
        duration: After how many encoder frames the next decision follows, int64, shape [decisions], 0 to 4.
    """

    tokens: NDArray[np.int64]
    frame: NDArray[np.int64]
    said: NDArray[np.int64]
    label: NDArray[np.int64]
    duration: NDArray[np.int64]


def frames(samples: int) -> int:
    """Return how many encoder frames of so many samples NeMo counts: three halvings, each rounded up."""
    return max(1, (samples // _HOP + 7) // 8)


def steps(recording: Recording, tokenizer: Tokenizer, blank: int) -> Steps:
    """Return the decisions for a recording.

    - The time of a word is divided among its tokens by their letters.
    - A token is said at the frame that starts nearest to the token's start. Its duration ends where the token ends or
      the next token starts, whichever comes first.
    - At a frame where no token starts, the label is the blank. Its duration ends where the next token starts.
    - One frame after a token, if no other token starts there, the token may be said as well. A search that went one
      frame too far then loses nothing.
    - No duration is longer than 4 frames.

    Args:
        recording: The recording; its words are in the order of their times.
        tokenizer: Divides words into tokens.
        blank: The number of the blank: how many tokens the vocabulary has.
    """
    tokens, starts, ends = _tokens(recording, tokenizer, frames(len(recording.samples)))
    total = frames(len(recording.samples))
    rows: list[tuple[int, int, int, int]] = []
    said = 0
    for frame in range(total):
        first = said
        while said < len(tokens) and starts[said] <= frame:
            following = starts[said + 1] if said + 1 < len(tokens) else total
            step = min(LONGEST_STEP, min(following, max(frame, ends[said])) - frame)
            rows.append((frame, said, tokens[said], 1 if step == 0 and following > frame else step))
            said += 1
        if said > first:
            continue
        following = starts[said] if said < len(tokens) else total
        rows.append((frame, said, blank, max(1, min(LONGEST_STEP, following - frame))))
        if said and starts[said - 1] == frame - 1:
            late = min(LONGEST_STEP, min(following, max(frame + 1, ends[said - 1])) - frame)
            rows.append((frame, said - 1, tokens[said - 1], late))
    columns = np.asarray(rows, np.int64).reshape(-1, 4).T
    return Steps(np.asarray(tokens, np.int64), columns[0], columns[1], columns[2], columns[3])


def _tokens(recording: Recording, tokenizer: Tokenizer, total: int) -> tuple[list[int], list[int], list[int]]:
    """Return the tokens, and for each the frames where it starts and ends."""
    tokens: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    for word, (start, end) in zip(recording.words, recording.times, strict=True):
        pieces = tokenizer.encode(word)
        shares = _shares([tokenizer.id_to_piece(piece) for piece in pieces])
        for piece, (first, last) in zip(pieces, shares, strict=True):
            tokens.append(piece)
            starts.append(min(total - 1, round((start + (end - start) * first) / FRAME)))
            ends.append(round((start + (end - start) * last) / FRAME))
    return tokens, starts, ends


def _shares(pieces: Sequence[str]) -> list[tuple[float, float]]:
    """Return where each piece starts and ends within its word, from 0 to 1, by the number of its letters."""
    letters = [len(piece.replace("\u2581", "")) for piece in pieces]
    ends = np.cumsum(letters) / max(1, sum(letters))
    return list(zip(np.concatenate([[0.0], ends[:-1]]).tolist(), ends.tolist(), strict=True))
