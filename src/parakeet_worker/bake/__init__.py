"""The bake: converts a NeMo checkpoint to a model directory, and checks it against NeMo."""
