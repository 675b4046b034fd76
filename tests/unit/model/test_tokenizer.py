"""Pieces and text of token ids."""

import io

import pytest
import sentencepiece

from parakeet_worker.model.config import UnsupportedModelError
from parakeet_worker.model.tokenizer import Tokenizer
from project import MODEL_DIR


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer((MODEL_DIR / "tokenizer" / "tokenizer.model").read_bytes())


def test_the_pieces_give_the_text(tokenizer: Tokenizer) -> None:
    pieces = (MODEL_DIR / "tokenizer" / "vocab.txt").read_text().split("\n")
    ids = [pieces.index(piece) for piece in ("▁The", "▁c", "on", "re", ".")]
    assert tokenizer.pieces(ids) == ["▁The", "▁c", "on", "re", "."]
    assert tokenizer.text(ids) == "The conre."
    assert tokenizer.text([]) == ""


def test_no_space_stands_before_a_mark(tokenizer: Tokenizer) -> None:
    pieces = (MODEL_DIR / "tokenizer" / "vocab.txt").read_text().split("\n")
    space = next(index for index, piece in enumerate(pieces) if piece == "▁")
    assert tokenizer.text([pieces.index("▁The"), space, pieces.index(".")]) == "The."


def test_pieces_for_single_bytes_are_refused() -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the children must learn to reason"] * 9),
        model_writer=model,
        vocab_size=290,
        hard_vocab_limit=False,
        byte_fallback=True,
        minloglevel=2,
    )
    with pytest.raises(UnsupportedModelError, match="pieces for single bytes"):
        Tokenizer(model.getvalue())


def test_an_unknown_piece_is_marked(tokenizer: Tokenizer) -> None:
    assert tokenizer.pieces([0]) == ["⁇"]
    assert tokenizer.text([0]).strip() == "⁇"
