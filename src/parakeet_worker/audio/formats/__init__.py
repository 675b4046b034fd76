"""Detection of a file's audio format, and the decoders, some of which run in child processes."""
