"""One word alignment from two: each word aligned by one model in one direction, by another in the other.

(Och and Ney 2003, section 4.1; grow-diag-final-and as of Koehn et al. 2003, section 4.5, and Moses.)
"""

from typing import Literal

import numpy as np

Method = Literal['grow-diag-final-and', 'intersection', 'union']
NEIGHBOURS = ((-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


def symmetrise(source_of: np.ndarray, target_of: np.ndarray, method: Method) -> set[tuple[int, int]]:
    """Links (source position, target position).

    Args:
      source_of: for each target position a source position, or the source's length for none.
      target_of: for each source position a target position, or the target's length for none.
    """
    l, m = len(target_of), len(source_of)
    forward = {(int(j), i) for i, j in enumerate(source_of) if j < l}
    backward = {(j, int(i)) for j, i in enumerate(target_of) if i < m}
    if method == 'intersection':
        return forward & backward
    union = forward | backward
    if method == 'union':
        return union
    links = forward & backward
    sources, targets = {j for j, _ in links}, {i for _, i in links}

    def add(link: tuple[int, int]) -> None:
        links.add(link)
        sources.add(link[0])
        targets.add(link[1])

    grown = True
    while grown:  # grow-diag: neighbours of a link, in the union, where a word is still without a link
        grown = False
        for j, i in sorted(links):
            for dj, di in NEIGHBOURS:
                new = j + dj, i + di
                if new in union and new not in links and (new[0] not in sources or new[1] not in targets):
                    add(new)
                    grown = True
    for direction in (forward, backward):  # final-and: links of which neither word has one
        for link in sorted(direction):
            if link[0] not in sources and link[1] not in targets:
                add(link)
    return links
