"""Token ids to pieces and text, with SentencePiece, as NeMo does it."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from sentencepiece import SentencePieceProcessor

from parakeet_worker.model.config import UnsupportedModelError

# Pieces whose characters NeMo does not count as punctuation: control tokens, and pieces that begin a word.
_SPECIAL = re.compile(r"\[.*\]$|<.*>$|##|▁|\s*$")


class Tokenizer:
    """The tokenizer of a model.

    Args:
        model: A SentencePiece model, serialised.

    Raises:
        UnsupportedModelError: It spells characters that it does not know in bytes.
    """

    def __init__(self, model: bytes) -> None:
        self._processor = SentencePieceProcessor(model_proto=model)
        ids = range(self._processor.get_piece_size())
        if any(map(self._processor.is_byte, ids)):
            # Several make one character, so the times of words could not be told from those of tokens.
            raise UnsupportedModelError("its tokenizer has pieces for single bytes")
        self._pieces = [self._processor.id_to_piece(index) for index in ids]
        marks = {
            character
            for piece in self._pieces
            if not _SPECIAL.match(piece)
            for character in piece
            if unicodedata.category(character).startswith("P")
        }
        self._space_before_mark = re.compile(rf"\s([{re.escape(''.join(sorted(marks)))}])") if marks else None

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Return the pieces of token ids. The unknown piece is `⁇`, as it is in the text."""
        return ["⁇" if self._processor.is_unknown(index) else self._pieces[index] for index in ids]

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, without the spaces before punctuation marks that have tokens of their own."""
        text: str = self._processor.decode_pieces([self._pieces[index] for index in ids])
        return self._space_before_mark.sub(r"\1", text) if self._space_before_mark else text

    def labels(self, text: str) -> list[int] | None:
        """Return the token ids of a text that begins a word, or None if a character of it is in no piece."""
        ids: list[int] = self._processor.encode_as_ids(text)
        return None if any(map(self._processor.is_unknown, ids)) else ids
