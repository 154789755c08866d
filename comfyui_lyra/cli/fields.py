"""Flags of the shell from dataclasses: name, type, choices, default and help are the field's own."""

import argparse
from dataclasses import MISSING, Field, fields, replace
from types import UnionType
from typing import Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..recon.times import parse_times

Settings = TypeVar("Settings")


def add_fields(
    verb: argparse._ActionsContainer, settings: type, *names: str, prefix: str = "", unset: bool = False, **told: object
) -> None:
    """A flag for each named field of a dataclass. A field that is True by default is switched off by ``--no-NAME``.

    ``prefix`` is for a name that another field has too; ``filled`` is then told that value. ``unset`` leaves the
    default to whoever takes the options. What is ``told`` stands in for the field's own, as argparse names it.
    """
    known, hints = {field.name: field for field in fields(settings)}, get_type_hints(settings)
    for name in names:
        field, dashed = known[name], name.replace("_", "-")
        about: dict[str, object] = {"help": field.metadata.get("help")}
        if hints[name] is bool:
            verb.add_argument(f"--{'no-' * default_of(field)}{dashed}", action="store_true", **about | told)
        else:
            about |= {"default": None if unset else default_of(field)} | reading(hints[name])
            verb.add_argument(f"--{prefix}{dashed}", **about | told)


def filled(settings: Settings, options: argparse.Namespace, /, **others: object) -> Settings:
    """The settings with what the options say of their fields, but for None, and with the ``others`` as they are."""
    said = vars(options)
    given = {field.name: said[field.name] for field in fields(settings) if said.get(field.name) is not None}
    switched = {field.name: False for field in fields(settings) if said.get(f"no_{field.name}")}
    return replace(settings, **given | switched | others)


def default_of(field: Field) -> object:
    """The value of a field that is not given."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def reading(hint: object) -> dict[str, object]:
    """How argparse reads a value of a type: choices of a Literal, the type otherwise, numbers for a tuple of them."""
    if get_origin(hint) in (Union, UnionType):  # of a type and None
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    return {"type": numbers if hint == tuple[int, ...] else hint}


def numbers(text: str) -> tuple[int, ...]:
    """Numbers and stretches of them, as bullet times are written."""
    try:
        return parse_times(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' holds no numbers such as 1,3 or stretches such as 0-63") from error
