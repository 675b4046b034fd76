"""How the embedded model is made: text, speech, training, measuring."""
