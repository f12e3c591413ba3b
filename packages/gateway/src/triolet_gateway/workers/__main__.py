"""python -m triolet_gateway.workers DESCRIPTOR: a worker, started by the core with its end of the link."""

import os
import sys

from triolet_gateway.workers._process import main

if __name__ == "__main__":
    main(int(sys.argv[1]))
    os._exit(0)  # there is nothing left to be written, and the core waits
