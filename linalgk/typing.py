"""Types of the public signatures; nothing here runs."""

from typing import Any, Literal, TypeAlias, TypeVar

__all__ = [
    "Array", "ArrayT", "AssumeA", "Backend", "LogMethod", "OnFail", "OrthogonalizeCoeffs",
    "OrthogonalizeMethod", "PowerMethod", "RootMethod", "SignMethod",
]  # fmt: skip

# Any array of the array API: there is no common base class to name.
Array: TypeAlias = Any
ArrayT = TypeVar("ArrayT")
AssumeA: TypeAlias = Literal["gen", "her", "pos"]
Backend: TypeAlias = Literal["auto", "kernel", "reference"]
OnFail: TypeAlias = Literal["raise", "warn", "nan"]
RootMethod: TypeAlias = Literal[
    "auto", "eigh", "newton_schulz", "minimax", "closed_form", "schur", "db", "pade", "taylor"
]
PowerMethod: TypeAlias = Literal["auto", "eigh", "minimax", "schur", "products"]
SignMethod: TypeAlias = Literal["auto", "eigh", "minimax", "newton_schulz", "newton", "pade"]
LogMethod: TypeAlias = Literal["auto", "eigh", "schur"]
OrthogonalizeMethod: TypeAlias = Literal["auto", "plain", "gram"]
OrthogonalizeCoeffs: TypeAlias = Literal[
    "muon", "you", "polar_express", "cans", "aol", "minimax", "prism", "auon", "hybrid_auon"
]
