"""seqjax's launcher: flags -> experiment -> run. `python launch.py --list` shows what there is."""

import sys

from seqjax import allocator

if __name__ == '__main__':
    allocator.start_again()
    from seqjax.launcher import main
    sys.exit(main(sys.argv[1:]))
