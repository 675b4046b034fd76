"""From windows of audio to words: the scheduler, and the text and times that its results are merged to.

Imports neither torch, NeMo nor RunPod.
"""
