"""Write `psyche_train/fold/basis.npy`, the integer cosine table of the fold, and print its SHA-256.

For every n from 1 to 128 the row holds, at positions 0..n, round(2**20 * sqrt(2/n) * cos(pi*m/(2n))) for
m = 0..n, and at position n + 1, round(2**20 / sqrt(n)): all entries of the orthonormal DCT-II of length n
are among these, up to sign. Computed with 60 digits; no entry is near a tie.
"""

from pathlib import Path

import mpmath
import numpy as np

MAX_EDGE = 128


def main() -> None:
    """Compute and write the table."""
    mpmath.mp.dps = 60
    table = np.zeros((MAX_EDGE + 1, MAX_EDGE + 2), dtype="<i4")
    for n in range(1, MAX_EDGE + 1):
        scale = mpmath.mpf(2) ** 20 * mpmath.sqrt(mpmath.mpf(2) / n)
        for m in range(n + 1):
            table[n, m] = int(mpmath.floor(scale * mpmath.cos(mpmath.pi * m / (2 * n)) + mpmath.mpf(1) / 2))
        table[n, n + 1] = int(mpmath.floor(mpmath.mpf(2) ** 20 / mpmath.sqrt(n) + mpmath.mpf(1) / 2))
    path = Path(__file__).parent.parent / "psyche_train" / "fold" / "basis.npy"
    np.save(path, table)
    import hashlib

    print(hashlib.sha256(table.tobytes()).hexdigest(), path)


if __name__ == "__main__":
    main()
