"""Words the memory search knows about: those that carry no meaning, those that carry little, and synonyms."""

from __future__ import annotations

STOP = frozenset(
    """
    a about across an and any are as at be between by can could did do does during find for from get give had
    has have how i if in into is it its know look me my need no not of on or our over please search shall should
    show so some tell than that the their them then there these they this those to under up upto us want was we
    were what when where which while who whose why will with within would you your
    """.split()
)
"""Never matched."""

GENERIC = frozenset(
    """
    according alloy amount approx approximately around average best big c celsius ceramic change changes cold
    common cooled cooling current data datasheet deg degree degrees describe detail details exact explain figure
    general glass good grade heated heating high info information k kelvin kind large like list long low many
    material materials mean metal much near number official part parts per precise properties property range
    ranges rate recommended room roughly rule rules said say says sheet short small source standard state temp
    temperature temperatures type typical unit units use used using usual value values warm warmed when
    """.split()
)
"""Matched, but of little weight: a passage is not an answer because it holds these, nor wrong for lacking them."""

_GROUPS = """
cte dilatation dilate dilation expand expanding expands expansion grow grows growth lengthen swell
density heavy mass weigh weighs weight
elastic modulus stiff stiffness young young's youngs
poisson poisson's poissons
conduct conduction conductivity conducts
strength strong yield
element elements mesh meshing
converge converged convergence converges
eigenfrequencies eigenfrequency frequencies frequency modal mode modes
wavefront wfe
zernike zernikes
optimisation optimise optimiser optimization optimize optimizer
emulator metamodel surrogate
doe experiments
"""

SYNONYMS: dict[str, frozenset[str]] = {
    word: frozenset(line.split()) for line in _GROUPS.strip().splitlines() for word in line.split()
}
"""Word -> all words that mean the same here."""
