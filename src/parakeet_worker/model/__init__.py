"""The plain engine, model directories, the device, and the check before the first job."""
