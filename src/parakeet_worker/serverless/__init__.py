"""Everything of RunPod: its jobs, its SDK, the envelope of its answers, and the log. Importing this imports nothing."""
