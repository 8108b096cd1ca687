"""Symmetrised alignments and phrases: by hand, and against the definition."""

import itertools

import numpy as np
import pytest

from seqjax.statistical.phrases import FLOOR, NO_WORD, build, extract, lexical
from seqjax.statistical.symmetry import symmetrise

RNG = np.random.default_rng(0)


def test_symmetrisation_by_hand():
    # Three source and four target words, 3 and 4 for none. Forward 0-0 1-1 2-3, target word 2 free; backward 0-0 1-2
    # 2-3.
    source_of, target_of = np.array([0, 1, 3, 2]), np.array([0, 2, 3])
    assert symmetrise(source_of, target_of, 'intersection') == {(0, 0), (2, 3)}
    assert symmetrise(source_of, target_of, 'union') == {(0, 0), (1, 1), (1, 2), (2, 3)}
    # 1-1 is a neighbour of 0-0 with free words; 1-2 of 2-3, and its target word is free.
    assert symmetrise(source_of, target_of, 'grow-diag-final-and') == {(0, 0), (1, 1), (1, 2), (2, 3)}


def test_final_and_needs_two_free_words():
    # No neighbours: forward 0-0 and 0-4, backward 0-0 and 3-2. 0-4 has a source word that is taken; 3-2 is free.
    source_of = np.array([0, 4, 4, 4, 0])
    target_of = np.array([0, 5, 5, 2])
    assert symmetrise(source_of, target_of, 'union') == {(0, 0), (0, 4), (3, 2)}
    assert symmetrise(source_of, target_of, 'grow-diag-final-and') == {(0, 0), (3, 2)}


def test_growing_goes_on_from_what_has_grown():
    # 0-0 is sure; 1-1, 2-2 come one after the other, along the diagonal.
    source_of, target_of = np.array([0, 1, 2]), np.array([0, 3, 3])
    assert symmetrise(source_of, target_of, 'intersection') == {(0, 0)}
    assert symmetrise(source_of, target_of, 'grow-diag-final-and') == {(0, 0), (1, 1), (2, 2)}


def by_definition(links, S, T, longest):
    """All pairs of spans with a link inside and none that leaves them (Koehn et al. 2003, section 3)."""
    spans = [[(a, b) for a in range(n) for b in range(a + 1, min(a + longest, n) + 1)] for n in (S, T)]
    for (s, s_end), (t, t_end) in itertools.product(*spans):
        inside = [s <= j < s_end for j, _ in links], [t <= i < t_end for _, i in links]
        if inside[0] == inside[1] and any(inside[0]):
            yield s, s_end, t, t_end


@pytest.mark.parametrize('longest', [1, 2, 3, 7])
def test_extraction_is_the_definition(longest):
    found = 0
    for _ in range(150):
        S, T = RNG.integers(1, 7, 2)
        links = {(int(RNG.integers(S)), int(RNG.integers(T))) for _ in range(RNG.integers(0, 7))}
        pairs = extract(links, S, T, longest)
        assert len(set(pairs)) == len(pairs)
        assert set(pairs) == set(by_definition(links, S, T, longest)), (links, S, T)
        found += len(pairs)
    assert found > 60


def test_scores_by_hand():
    """Two sentences: a b -> x y (a-x b-y) twice in other company, and a -> z once."""
    A, B, C, X, Y, Z = 4, 5, 6, 7, 8, 9
    sources, targets = [[A, B], [A, B, C], [A]], [[X, Y], [X, Y, Z], [Z]]
    links = [{(0, 0), (1, 1)}, {(0, 0), (1, 1)}, {(0, 0)}]  # C, and the Z beside it, have no link
    sides = [[np.array(row, np.int32) for row in side] for side in (sources, targets)]
    table = build(*sides, links, longest=3, options=9)
    rows = {(tuple(s[s != NO_WORD].tolist()), tuple(t[t != NO_WORD].tolist())): scores for s, t, scores in zip(
        table.source_PN, table.target_PN, table.scores_PF)}
    forward, backward = lexical(*sides, links)
    assert forward == {(A, X): 2 / 3, (A, Z): 1 / 3, (B, Y): 1.0, (-2, Z): 1.0}
    assert backward == {(X, A): 1.0, (Y, B): 1.0, (Z, A): 1.0, (-2, C): 1.0}
    # Counts: (A, X) 2, (A, Z) 1, (B, Y) 2, (B, Y Z) 1, (A B, X Y) 2, (A B, X Y Z) 1, (B C, Y) 1, (B C, Y Z) 1,
    # (A B C, X Y) 1, (A B C, X Y Z) 1.
    assert len(rows) == 10
    by_hand = {((A,), (X,)): [2 / 2, 1, 2 / 3, 2 / 3], ((A,), (Z,)): [1, 1, 1 / 3, 1 / 3],
               ((B,), (Y,)): [2 / 3, 1, 2 / 3, 1], ((A, B), (X, Y)): [2 / 3, 1, 2 / 3, 2 / 3],
               ((A, B), (X, Y, Z)): [1 / 2, 1, 1 / 3, 2 / 3], ((A, B, C), (X, Y, Z)): [1 / 2, 1, 1 / 2, 2 / 3]}
    for pair, scores in by_hand.items():
        np.testing.assert_allclose(np.exp(rows[pair]), scores, rtol=1e-5, err_msg=str(pair))
    # A source's pairs stand together, the likeliest first, and `ranges` finds them.
    (first, last) = table.ranges()[np.array([A, B], np.int32).tobytes()]
    assert last - first == 2
    assert (np.diff(table.scores_PF[first:last, 2]) < 0).all()
    assert np.array([C], np.int32).tobytes() not in table.ranges()
    few = build(*sides, links, longest=3, options=1)
    assert len(few.ranges()) == len(few.source_PN) == len(table.ranges()) == 5
    np.testing.assert_allclose(few.scores_PF[few.ranges()[np.array([A], np.int32).tobytes()][0]],
                               rows[(A,), (X,)]), 'pruning changes no score'


def test_the_best_of_several_alignments_within_a_pair():
    """lex(x y | a b) of the crossing links is lower: the highest counts."""
    sides = [[np.array([4, 5], np.int32)] * 4, [np.array([7, 8], np.int32)] * 4]
    links = [{(0, 0), (1, 1)}] * 3 + [{(0, 1), (1, 0)}]
    table = build(*sides, links, longest=2, options=9)
    (first, last) = table.ranges()[np.array([4, 5], np.int32).tobytes()]
    assert last == first + 1
    np.testing.assert_allclose(np.exp(table.scores_PF[first]), [1, (3 / 4) ** 2, 1, (3 / 4) ** 2], rtol=1e-5)


def test_no_links_no_phrases():
    table = build([np.array([4], np.int32)], [np.array([5], np.int32)], [set()], 3, 5)
    assert table.source_PN.shape == (0, 3)
    assert table.ranges() == {}
    assert FLOOR < -5
