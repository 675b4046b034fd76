"""Model directories (card and files), the device that a model runs on, and the check before the first job."""
