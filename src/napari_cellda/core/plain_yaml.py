"""YAML that may come from anyone."""

from __future__ import annotations

from typing import Any

import yaml


def parse_yaml(text: str) -> Any:
    """Read plain values; nothing in the text is run.

    Raises
    ------
    ValueError
        If it is no valid YAML; one line.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    except Exception as error:  # a date 2001-99-99, a number 0x_, 5000 brackets: many kinds
        raise ValueError(f"a value in it makes no sense ({error})") from error
