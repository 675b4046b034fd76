"""What a request means: its fields, its action, and the fields of its response. Knows nothing of RunPod."""
