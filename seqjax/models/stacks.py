"""What every model of recurrent stacks can be asked for: normalisation, and skips in time and between layers."""

import dataclasses
from typing import Literal

import jax

from seqjax.errors import UserError
from seqjax.layers.cells import Cell
from seqjax.models.contract import Translator, counted
from seqjax.options import option


class Stacked(Translator):
    """A translator whose encoder and decoder are stacks of recurrent cells; the options of both stacks.

    Their equations are in `layers/cells.py`, and `layers/recurrence.py` for those between layers.
    """

    normalisation: Literal['layer', 'rms', 'batch', 'none'] = option(
        'none', 'normalisation inside the cells: Ba 2016, Zhang and Sennrich 2019, Cooijmans 2017, or none')
    residual: bool = option(False, "each layer but the first adds its input to its output (Wu et al. 2016)")
    time_skip: int = option(0, 's: cells also read h_{t-s} (Zhang et al. 2016); 0: they do not', at_least=0)
    dilation: int = option(1, 'base b: layer l, from 0, steps from the state at t - b^l (Chang et al. 2017)',
                           at_least=1)

    @property
    def unpads(self) -> bool:
        """What stands before and behind the scan over time. (Batch statistics are taken over rows.)"""
        return self.normalisation != 'batch'

    def check(self) -> None:
        """Refuses skips that would skip nothing, or both at once."""
        if self.time_skip == 1:
            raise UserError('--model.time_skip=1 is the recurrence itself; choose 2 or more, or 0 for none')
        if self.time_skip and self.dilation > 1:
            raise UserError(f'--model.time_skip={self.time_skip} and --model.dilation={self.dilation} are two ways to '
                            'reach back in time; choose one')
        for name, plain in (('dilation', 1), ('residual', False)):
            if self.num_layers == 1 and getattr(self, name) != plain:
                raise UserError(f'--model.{name}={str(getattr(self, name)).lower()} begins with the second layer and '
                                'there is one; raise --model.num_layers')

    def stacked(self, cell: Cell) -> Cell:
        """`cell` with the options of the stacks."""
        if self.normalisation == 'batch' and self.source_length is None:
            raise UserError('--model.normalisation=batch needs the length of the longest sentence, which is not known; '
                            'choose layer or rms')
        return dataclasses.replace(cell, normalisation=self.normalisation, time_skip=self.time_skip,
                                   dilation=self.dilation, steps=self.source_length or 1)

    def counted(self, tokens_BT: jax.Array, memory: dict) -> jax.Array | None:
        """The decoder inputs that count in batch statistics; `memory` has the source's 'mask'."""
        return counted(tokens_BT, memory['mask']) if self.normalisation == 'batch' else None
