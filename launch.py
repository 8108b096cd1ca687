"""seqjax's launcher: flags -> experiment -> run. `python launch.py --list` shows what there is."""

import gc
import sys

from seqjax import allocator

if __name__ == '__main__':
    allocator.start_again()
    gc.set_threshold(100_000, 20, 20)  # tracing makes many objects, and hardly any of them are garbage
    from seqjax.launcher import main
    sys.exit(main(sys.argv[1:]))
