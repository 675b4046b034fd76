"""Transcribing a batch with NeMo's preprocessor, encoder and decoder: RNNT, TDT or CTC."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from parakeet_worker.asr.types import SAMPLE_RATE, DecodingOptions, Hypothesis, ReadHypothesis, Token
from parakeet_worker.model.device import Plan
from parakeet_worker.model.torch_recognizer import Meanwhile, TorchRecognizer


class NemoRecognizer(TorchRecognizer):
    """A baked model with an RNNT, TDT or CTC decoder, run by NeMo's own modules on tensors.

    Tokens have the times that NeMo's `transcribe(timestamps=True)` gives them one by one, also in batches.

    Args:
        model: NeMo's model, on the plan's device.
        plan: How to run it.
    """

    def __init__(self, model: Any, plan: Plan) -> None:  # noqa: ANN401 - NeMo is not typed
        super().__init__(plan)
        self.model = model
        hop: int = model.preprocessor.featurizer.hop_length  # in samples
        self._frame_seconds = hop / SAMPLE_RATE * model.encoder.subsampling_factor

    @torch.inference_mode()
    def _run(
        self,
        signal: torch.Tensor,
        lengths: torch.Tensor,
        options: Sequence[DecodingOptions],
        meanwhile: Meanwhile,
    ) -> list[ReadHypothesis]:
        model = self.model
        features, lengths = model.preprocessor(input_signal=signal, length=lengths)  # (B, mels, mel frames), (B,)
        precision = next(model.encoder.parameters()).dtype
        encoded, lengths = model.encoder(audio_signal=features.to(precision), length=lengths)
        meanwhile()
        return self._decode(encoded.float(), lengths)

    def _decode(self, encoded: torch.Tensor, lengths: torch.Tensor) -> list[ReadHypothesis]:
        """Decode the encoder's output, (B, channels, encoder frames), with `lengths`, (B,), in encoder frames."""
        decoding = self.model.decoding
        if not hasattr(self.model, "joint"):
            scores = self.model.decoder(encoder_output=encoded)  # (B, encoder frames, labels)
            found = decoding.ctc_decoder_predictions_tensor(scores, lengths, return_hypotheses=True)
            return [
                partial(self._hypothesis, each.text, *ctc_frames(each.y_sequence, decoding.blank_id)) for each in found
            ]
        found = decoding.rnnt_decoder_predictions_tensor(encoded, lengths, return_hypotheses=True)
        labels, starts = [each.y_sequence for each in found], [each.timestamp for each in found]
        ends = [start + 1 for start in starts]
        if decoding.durations:
            durations = self._durations(encoded, labels, starts) if len(found) > 1 else [found[0].token_duration]
            ends = [start + duration for start, duration in zip(starts, durations, strict=True)]
        texts = [each.text for each in found]
        return [partial(self._hypothesis, *each) for each in zip(texts, labels, starts, ends, strict=True)]

    def _durations(
        self, encoded: torch.Tensor, labels: Sequence[torch.Tensor], starts: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        """Compute the durations of TDT tokens that were decoded in a batch.

        Those of NeMo's batched search are wrong: until every stream has its next label, it overwrites the durations
        of those that have theirs. So the joint is evaluated again, once for each token, at the frame where the token
        was found and after the tokens before it. That gives what NeMo's search gives for a single stream.

        Args:
            encoded: The encoder's output, (B, channels, encoder frames).
            labels: For each stream (tokens,), int64.
            starts: The encoder frames that they were found at, the same shapes.

        Returns:
            The durations in encoder frames, the same shapes, on the CPU.
        """
        model, counts = self.model, [len(each) for each in labels]
        streams = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))  # (all tokens,)
        positions = torch.cat([torch.arange(count) for count in counts])
        padded = pad_sequence(list(labels), batch_first=True).to(encoded.device)  # (B, most tokens)
        predicted, _ = model.decoder.predict(padded, add_sos=True)  # (B, most tokens + 1, channels)
        logits = model.joint.joint(
            encoded[streams, :, torch.cat(list(starts))][:, None], predicted[streams, positions][:, None]
        )  # (all tokens, 1, 1, labels + durations)
        durations = torch.tensor(list(model.decoding.durations))
        found: Sequence[torch.Tensor] = durations[logits[:, 0, 0, -len(durations) :].argmax(-1).cpu()].split(counts)
        return found

    def _hypothesis(self, text: str, labels: torch.Tensor, starts: torch.Tensor, ends: torch.Tensor) -> Hypothesis:
        # SentencePiece writes an unknown piece as a double question mark.
        pieces = ["⁇" if piece == "<unk>" else piece for piece in self.model.tokenizer.ids_to_tokens(labels.tolist())]
        spans = zip(pieces, starts.tolist(), ends.tolist(), strict=True)
        seconds = self._frame_seconds
        return Hypothesis(text, tuple(Token(piece, start * seconds, end * seconds) for piece, start, end in spans))


def ctc_frames(labels: torch.Tensor, blank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Collapse the labels of a CTC model's frames to tokens with times as NeMo gives them.

    A token ends where it is first emitted, and starts where the token before it was; the first one starts a frame
    before its end.

    Args:
        labels: The best label of each frame, (encoder frames,), int64.
        blank: The label that stands for none.

    Returns:
        Labels, starts and ends of the tokens, in encoder frames, each (tokens,).
    """
    runs, lengths = torch.unique_consecutive(labels, return_counts=True)
    ends = (lengths.cumsum(0) - lengths)[runs != blank]
    starts = torch.cat([(ends[:1] - 1).clamp(min=0), ends[:-1]])
    return runs[runs != blank], starts, ends
