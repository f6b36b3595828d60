"""Makes HTML from templates: one base for the report of a run and of a training."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

NOTICE = "Research use only. Not a medical device. Not for diagnosis, treatment, or any decision about a person."
# Nothing but the report's own files. On file:// 'self' means files in Chromium, elsewhere nothing: hence file:, which
# on a server allows nothing.
POLICY = (
    "default-src 'none'; img-src 'self' file:; style-src 'self' file:; script-src {scripts};"
    " base-uri 'none'; form-action 'none'"
)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("segport.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["address"] = lambda text: quote(str(text), safe="")
    return made


def render(template: str, context: Mapping[str, Any], *, scripts: bool = False) -> bytes:
    """Return a page in UTF-8; all text of `context` is escaped, and must be `printable`.

    `scripts`: whether it has any.
    """
    policy = POLICY.format(scripts="'self' file:" if scripts else "'none'")
    return _environment().get_template(template).render(context, policy=policy, notice=NOTICE).encode()


def read_asset(name: str) -> bytes:
    """Return the style sheet or the script."""
    return (files("segport.report") / "assets" / name).read_bytes()
