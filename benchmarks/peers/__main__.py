"""Makes the environment of the peers, .cache/peers, apart from our own: python -m benchmarks.peers

Of torch the build for the CPU is enough where there is no accelerator: name its wheel with --torch, or its index as pip
lets one do.
"""

import argparse
import pathlib
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOME = ROOT / '.cache' / 'peers'
PYTHON = HOME / 'bin' / 'python'
TORCH = 'torch==2.13.0'
PINNED = ('transformers==5.24.0', 'ctranslate2==4.8.5', 'joeynmt==2.3.0', 'numpy==2.4.6', 'protobuf==3.20.3',
          'tensorboard==2.20.0')


def main() -> int:
    """Makes it, or says that it is there; returns pip's exit code."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.peers', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--torch', default=TORCH, help='the requirement or wheel to install as torch')
    options = parser.parse_args()
    if not PYTHON.exists():
        venv.create(HOME, with_pip=True)
    for wanted in ([options.torch], list(PINNED)):  # torch first, or a dependent would take its own
        done = subprocess.run([PYTHON, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', *wanted])
        if done.returncode:
            return done.returncode
    print(f'{PYTHON}: {options.torch} {" ".join(PINNED)}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
