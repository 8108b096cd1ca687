"""seqjax's launcher: flags -> experiment -> run. `python launch.py --list` shows what there is."""

import sys

from seqjax.launcher import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
