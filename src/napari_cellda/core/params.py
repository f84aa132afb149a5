"""The base of every settings model: frozen, strict, and documented where it is declared."""

from __future__ import annotations

import math
import types
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from napari_cellda.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

Preset = Literal["cpu", "gpu", "published"]
"""What settings begin with, before those that a user changes."""
EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "tuple_type": "values with commas between them",
    "missing": "more values, with commas between them",
    "too_long": "at most {max_length} values",
    "multiple_of": "a multiple of {multiple_of}",
    "unexpected": "{expected}",
}
"""What a value should have been, by pydantic's name of the mistake."""


class BaseParams(BaseModel):
    """Settings that cannot change after they were checked.

    The string below a field is its help: the form's tooltip, the docs table and the error message
    all come from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _split(cls, value: Any, info: ValidationInfo) -> Any:
        """Take values as people type them, with commas between them, where a tuple is wanted."""
        if not isinstance(value, str):
            return value
        kind, optional = without_none(cls.model_fields[str(info.field_name)].annotation)
        if get_origin(kind) is not tuple:
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        return parts or (None if optional else value)


P = TypeVar("P", bound=BaseParams)


def unexpected(expected: str) -> PydanticCustomError:
    """Return what a validator raises for a value; the words end "is 'abc'; expected ..."."""
    return PydanticCustomError("unexpected", "expected {expected}", {"expected": expected})


def check_shares(params: P, one: str, other: str) -> P:
    """Return settings of which one is above 0 at least, or raise a UserError."""
    if not (getattr(params, one) or getattr(params, other)):
        raise UserError(f"The settings {one} and {other} are both 0; expected one above 0.")
    return params


def without_none(annotation: Any) -> tuple[Any, bool]:
    """Split ``X | None`` into X and whether None is allowed."""
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [a for a in get_args(annotation) if a is not type(None)]
        if len(kinds) == 1:
            return kinds[0], True
    return annotation, False


def checked(kind: type[P], values: Mapping[str, Any], owner: str) -> P:
    """Return settings of a kind with these values, all others as they are by default.

    Parameters
    ----------
    kind : type
    values : dict
    owner : str
        Whose settings they are, for messages.

    Raises
    ------
    UserError
        If there is no such setting, or a value is out of its range.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(part for part in first["loc"] if isinstance(part, str))
        if first["type"] == "extra_forbidden":
            raise UserError(f"{owner} has no setting '{name}'; {_instead(name, kind)}") from error
        raise UserError(f"The setting '{name}' of {owner} {refusal(first)}") from error


def _instead(name: str, kind: type[BaseParams]) -> str:
    names = list(kind.model_fields)
    near = get_close_matches(name, names)
    return f"did you mean {' or '.join(near)}?" if near else f"its settings are {', '.join(names)}."


def refusal(details: ErrorDetails) -> str:
    """Say in plain words what a setting is and what is expected of it.

    Parameters
    ----------
    details : ErrorDetails
        One of `ValidationError.errors()`.

    Returns
    -------
    str
        The end of a sentence that begins with the setting's name: "is 'abc'; expected a whole
        number."
    """
    value, expected = details["input"], EXPECTED.get(details["type"])
    if isinstance(value, float) and math.isnan(value):  # no bound tells
        expected = "a number"
    if expected is None:
        return f"is {value!r}: {details['msg']}."
    limits = details.get("ctx", {})
    return f"is {value!r}; expected {expected.format(**limits)}."
