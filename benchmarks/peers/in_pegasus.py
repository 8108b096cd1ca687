"""Hugging Face's and CTranslate2's side of items that translate with our trained parameters: their Pegasus, which is a
Transformer that normalises before each sub-layer, and its conversion.

Ends are where the model puts them. A batch of Hugging Face's is done when each of its sentences has as many hypotheses
as the beam is wide (`early_stopping`, its quickest way); CTranslate2 sorts sentences and drops those that have ended
itself.
"""

import sys

import numpy as np
import torch
from ctranslate2.converters.transformers import PegasusLoader
from transformers import PegasusConfig, PegasusForConditionalGeneration

from benchmarks import packed, protocol
from benchmarks.peers.in_marian import about, translator_of

EPSILON = 1e-6  # of layer normalisation, as ours
THREADS = 0


def pegasus(found):
    """The model, with ours for parameters."""
    sizes = found.sizes
    config = PegasusConfig(
        vocab_size=sizes['words'], d_model=sizes['width'], encoder_layers=sizes['layers'],
        decoder_layers=sizes['layers'], encoder_attention_heads=sizes['heads'], decoder_attention_heads=sizes['heads'],
        encoder_ffn_dim=sizes['feedforward'], decoder_ffn_dim=sizes['feedforward'], activation_function='relu',
        max_position_embeddings=sizes['length'], scale_embedding=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, forced_eos_token_id=None,
        normalize_before=True, normalize_embedding=False)  # both asked by CTranslate2
    model = PegasusForConditionalGeneration(config).eval()
    state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in packed.for_pegasus(found).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if 'embed_positions' not in name and name != 'final_logits_bias']
    if missing or unexpected:
        raise ValueError(f'no parameters for {missing}, no place for {unexpected}')
    for side in (model.model.encoder, model.model.decoder):  # theirs have sines first, ours has them in turn
        with torch.no_grad():
            side.embed_positions.weight.copy_(torch.from_numpy(found.positions))
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = EPSILON
    return model


def told_of(model, found):
    """The number of trained parameters, and the translations of all sentences, before the first EOS."""
    return {'parameters': sum(p.numel() for name, p in model.named_parameters() if 'embed_positions' not in name),
            'found': [packed.words_of(ids) for ids in found]}


def generate(run, rows, beam, penalty, by_length=False):
    """Hugging Face's `generate`, batch after batch; with `by_length` the shortest sentences first."""
    found = packed.Packed.read(run)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model = pegasus(found).to(device)
    batches = found.batches(rows, by_length)
    written = [None] * len(found.sources)

    def call(times):
        for _ in range(times):
            for places in batches:
                ids = torch.from_numpy(found.padded(places)).long().to(device)
                with torch.inference_mode():
                    best = model.generate(input_ids=ids, attention_mask=(ids != 0).long(), num_beams=beam,
                                          do_sample=False, max_new_tokens=found.sizes['length'], length_penalty=penalty,
                                          early_stopping=beam > 1)
                for place, row in zip(places, best.cpu().numpy()):
                    written[place] = row[1:]
        return times * len(written)

    call(1)
    return call, told_of(model, written)


def ctranslate(run, rows, beam, penalty):
    """CTranslate2's `translate_batch` of all sentences."""
    found = packed.Packed.read(run)
    model = pegasus(found)
    pieces = ['<pad>', '<s>', '</s>', '<unk>', *(f'w{i}' for i in range(4, found.sizes['words']))]
    translator = translator_of(PegasusLoader(), model, pieces, THREADS, start='<s>', layer_norm_epsilon=EPSILON)
    number = {piece: i for i, piece in enumerate(pieces)}
    lines = [[pieces[i] for i in ids] for ids in found.sources]
    written = []

    def call(times):
        for _ in range(times):
            best = translator.translate_batch(lines, max_batch_size=rows, beam_size=beam, length_penalty=penalty,
                                              max_decoding_length=found.sizes['length'])
            written[:] = [[number[piece] for piece in one.hypotheses[0]] for one in best]
        return times * len(lines)

    call(1)
    return call, told_of(model, written)


if __name__ == '__main__':
    THREADS = int(sys.argv[1])
    protocol.only(THREADS)
    torch.set_num_threads(THREADS)
    protocol.serve({'generate': generate, 'ctranslate2': ctranslate}, about)
