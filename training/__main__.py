"""`python -m training`."""

import sys

from training.build import main

main(sys.argv[1:])
