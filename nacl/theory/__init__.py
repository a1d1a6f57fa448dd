"""The derivations as code: what SVLS hides, what NACL converges to, and the family they belong to."""

from nacl.theory.bias import without_bias
from nacl.theory.family import FamilyRow, confidence_ceiling, family_table
from nacl.theory.flow import fitted_gap, fitting_time, gradient_flow
from nacl.theory.gradient import NACLGradient, nacl_gradient, penalty_slope
from nacl.theory.minimum import nacl_minimum, nacl_minimum_logits
from nacl.theory.svls import (
    SVLSGradient,
    SVLSSplit,
    SVLSWeights,
    svls_band_share,
    svls_gradient,
    svls_minimum,
    svls_price,
    svls_softening,
    svls_split,
    svls_weights,
)
from nacl.theory.symmetry import (
    COUNTEREXAMPLES,
    EQUIVARIANT_PRIORS,
    Counterexample,
    is_equivariant,
    relabelling_gap,
)

__all__ = [
    "COUNTEREXAMPLES",
    "EQUIVARIANT_PRIORS",
    "Counterexample",
    "FamilyRow",
    "NACLGradient",
    "SVLSGradient",
    "SVLSSplit",
    "SVLSWeights",
    "confidence_ceiling",
    "family_table",
    "fitted_gap",
    "fitting_time",
    "gradient_flow",
    "is_equivariant",
    "nacl_gradient",
    "nacl_minimum",
    "nacl_minimum_logits",
    "penalty_slope",
    "relabelling_gap",
    "svls_band_share",
    "svls_gradient",
    "svls_minimum",
    "svls_price",
    "svls_softening",
    "svls_split",
    "svls_weights",
    "without_bias",
]
