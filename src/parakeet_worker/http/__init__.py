"""HTTP statuses and waits before retries, for downloads, RunPod and the bake. Imports nothing else of the project."""
