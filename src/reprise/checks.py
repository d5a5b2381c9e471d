"""Types for constructor arguments: wrong types and impossible sizes are refused where the value enters, by name."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, validate_call

checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True))

Fraction = Annotated[float, Field(ge=0, lt=1)]
PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
