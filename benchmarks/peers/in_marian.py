"""Hugging Face's and CTranslate2's side of `benchmarks/translation.py`: one MarianMTModel, and its conversion.

Weights are random; no output may end before `target_length` tokens, so that all sides do the same work.
"""

import sys
import tempfile

import ctranslate2
import numpy as np
import torch
from ctranslate2.converters.transformers import MarianMTLoader
from transformers import MarianConfig, MarianMTModel

from benchmarks import items, protocol

THREADS = 0


def translate(ids: np.ndarray, words: int) -> np.ndarray:
    """Our ids as Marian's, whose end is 0 and whose padding is the last piece."""
    marians = np.concatenate([[words - 1, 1, 0, 2], np.arange(items.WORDS - 1, words - 1)])
    return marians[ids]


def marian(words, width, layers, heads, feedforward, length=64, **_):
    """A MarianMTModel of these sizes, for inference."""
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=words, d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=heads,
        decoder_attention_heads=heads, encoder_ffn_dim=feedforward, decoder_ffn_dim=feedforward,
        activation_function='relu', max_position_embeddings=length, scale_embedding=True, pad_token_id=words - 1,
        eos_token_id=0, bos_token_id=None, decoder_start_token_id=words - 1, forced_eos_token_id=None, init_std=0.05)
    return MarianMTModel(config).eval()


def told_of(model):
    """Trained parameters: sinusoids and the bias of the output, which stays 0, are none."""
    return {'parameters': sum(p.numel() for name, p in model.named_parameters() if 'embed_positions' not in name)}


def sources(shape):
    """The source batch, as Marian's ids."""
    (source, _), = items.batches(shape['rows'], shape['source_length'], 2, shape['words'], 1)
    return translate(source, shape['words']), source != items.PAD


def generate(beam, target_length, dtype='float32', **shape):
    """Hugging Face's `generate`."""
    model = marian(**shape)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model.to(device, getattr(torch, dtype))
    ids, mask = (torch.from_numpy(x).to(device) for x in sources(shape))

    def call(times):
        for _ in range(times):
            with torch.inference_mode():
                found = model.generate(input_ids=ids, attention_mask=mask.long(), num_beams=beam, do_sample=False,
                                       max_new_tokens=target_length, min_new_tokens=target_length, length_penalty=0.6)
        return times * len(ids) if found.shape == (len(ids), 1 + target_length) else 0

    call(1)
    return call, told_of(model)


def translator_of(loader, model, pieces, threads, dtype='float32', start='</s>', **config):
    """The model as CTranslate2's: what its converter does with a model that has a tokenizer."""
    folder = tempfile.mkdtemp()
    with torch.no_grad():
        spec = loader.get_model_spec(model)
    loader.set_vocabulary(spec, pieces)
    config |= dict(bos_token='<s>', eos_token='</s>', unk_token='<unk>', decoder_start_token=start)
    for name, value in config.items():
        setattr(spec.config, name, value)
    spec.validate()
    spec.optimize(quantization='float32')
    spec.save(folder)
    device = 'cuda' if ctranslate2.get_cuda_device_count() else 'cpu'
    return ctranslate2.Translator(folder, device=device, compute_type=dtype, inter_threads=1, intra_threads=threads)


def ctranslate(beam, target_length, dtype='float32', **shape):
    """CTranslate2's `translate_batch`."""
    model = marian(**shape)
    pieces = ['</s>', '<s>', '<unk>', *(f'w{i}' for i in range(3, shape['words'] - 1))]
    translator = translator_of(MarianMTLoader(), model, pieces, THREADS, dtype)
    ids, mask = sources(shape)
    lines = [[pieces[i] for i in row[there]] for row, there in zip(ids, mask)]

    def call(times):
        for _ in range(times):
            found = translator.translate_batch(lines, beam_size=beam, min_decoding_length=target_length,
                                               max_decoding_length=target_length, length_penalty=0.6)
        right = all(len(one.hypotheses[0]) == target_length for one in found)
        return times * len(lines) if right else 0

    call(2)
    return call, told_of(model)


def about():
    """Versions, device and threads."""
    import importlib.metadata
    versions = {name: importlib.metadata.version(name) for name in ('transformers', 'ctranslate2', 'torch')}
    device = 'gpu' if torch.cuda.is_available() else 'cpu'
    return {'versions': versions, 'device': device, 'device_kind': device, 'threads': torch.get_num_threads()}


if __name__ == '__main__':
    THREADS = int(sys.argv[1])
    protocol.only(THREADS)
    torch.set_num_threads(THREADS)
    protocol.serve({'generate': generate, 'ctranslate2': ctranslate}, about)
