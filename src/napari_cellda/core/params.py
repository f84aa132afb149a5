"""The base of every settings model: frozen, strict, and documented where it is declared."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class BaseParams(BaseModel):
    """Settings that cannot change after they were checked.

    The string below a field is its help: the form's tooltip, the docs table and the error message
    all come from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
