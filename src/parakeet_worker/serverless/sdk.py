"""Importing RunPod's SDK sooner than it would be."""


def import_sdk() -> None:
    """Import the SDK without the program that it starts to learn the name of the processor.

    The SDK waits for that program, which takes a second, longer than the model takes to load. It handles the case that
    the name is unknown, and shows it in the output of its debugger only.
    """
    import cpuinfo

    look_up = cpuinfo.get_cpu_info
    cpuinfo.get_cpu_info = dict
    try:
        import runpod.serverless  # noqa: F401 - to have been imported
    finally:
        cpuinfo.get_cpu_info = look_up
