"""How much memory a batch takes on a GPU, by a formula."""


def peak_bytes(windows: int, seconds: float) -> float:
    """Most that the tensors of Parakeet-TDT-0.6B-v2 take in 16 bits, beside its weights.

    Fitted to the dry run: the first output of the subsampling, or the scores of attention.
    """
    return windows * max(2.85e6 * seconds, 9.2e3 * seconds**2)
