"""Download and decode the audio of an `audio_url` to windows of samples: 16 kHz mono float32."""
