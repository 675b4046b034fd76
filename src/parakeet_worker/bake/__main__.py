"""`python -m parakeet_worker.bake`: see `command`."""

import sys
from importlib.util import find_spec

if __name__ == "__main__":
    if find_spec("nemo") is None:
        sys.exit("bake: NeMo is not installed; install it with: pip install -r requirements-nemo.txt")

    from parakeet_worker.bake.command import main

    main()
