"""Writes golden/EXPERIMENT-MODEL.txt, every option of each experiment with each model: `python -m tests.regenerate`."""

import pathlib

from seqjax import catalogue, flags
from seqjax.experiment import GROUPS

GOLDEN = pathlib.Path(__file__).parent / 'golden'


def composed(experiment: str, model: str) -> str:
    """The flagfile of an experiment as its recipe has it."""
    recipe = catalogue.load('experiment', experiment)(model)
    return flags.flagfile({f'{group}.': getattr(recipe, group) for group in GROUPS})


def pairs() -> list[tuple[str, str]]:
    """All experiments with all models."""
    return [(experiment, model) for experiment in catalogue.experiments() for model in catalogue.models()]


def main() -> None:
    """Writes every file, and removes those of experiments and models that are gone."""
    GOLDEN.mkdir(exist_ok=True)
    for path in GOLDEN.glob('*.txt'):
        path.unlink()
    for experiment, model in pairs():
        (GOLDEN / f'{experiment}-{model}.txt').write_text(composed(experiment, model), encoding='utf-8')


if __name__ == '__main__':
    main()
