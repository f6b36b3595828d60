"""What a report says of the run itself and of its model, from a run.json."""

from collections.abc import Mapping
from typing import Any

from segport.errors import ModelError
from segport.modelfile import file_sha256
from segport.segmenter import default_model
from segport.text import printable

EMBEDDED_LICENCE = "CC BY-NC-SA 4.0: not for commercial use, with attribution, shared alike"
NO_LICENCE = "licence not stated"


def describe_run(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what ran, as (term, text), from a run.json."""
    versions, device = document.get("versions", {}), str(document.get("provider", "unknown"))
    note = str(document.get("provider_note") or "")
    return [
        (term, printable(text))
        for term, text in (
            ("Input", ", ".join(map(str, document.get("inputs", ())))),
            ("Run", f"{str(document.get('started', 'date unknown')).replace('T', ' ').replace('+00:00', ' UTC')}"),
            ("Device", f"{device}, {document.get('threads', '?')} threads" + (f" ({note})" if note else "")),
            ("Program", f"segport {versions.get('segport', '?')}"),
        )
    ]


def describe_model(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the model's card, as (term, text), from the contract in a run.json."""
    model, contract = document["model"], document["contract"]
    origin, export = contract["origin"], contract.get("export") or {}
    threshold = document["settings"].get("threshold") or contract["output"]["threshold"]
    scores = [f"{name} {value:.3f}" for name, value in sorted(origin.get("dice", {}).items())]
    return [
        (term, printable(text))
        for term, text in (
            ("File", model["file"]),
            ("SHA-256", model["sha256"]),
            ("Licence", find_licence(origin.get("settings", {}), model["sha256"])),
            ("Network", f"{origin['architecture']}, output stride {origin['output_stride']}"),
            ("Input", f"{contract['input']['size']} x {contract['input']['size']} pixels"),
            ("Precision", export.get("precision", "not stated")),
            ("Threshold", f"probability {threshold:g}"),
            ("Dice of the training", "; ".join(scores) or "not stated"),
        )
    ]


def find_licence(origin: Mapping[str, Any], model: str = "") -> str:
    """Return the licence of a model: of the embedded one and those trained from it; others state none.

    `origin`: the settings in its contract's origin. `model`: SHA-256 of its file, where it is one.
    """
    return EMBEDDED_LICENCE if _embedded_sha256() in (origin.get("init_sha256"), model) else NO_LICENCE


def is_embedded(document: Mapping[str, Any]) -> bool:
    """Return whether the embedded model ran."""
    return bool(document["model"]["sha256"] == _embedded_sha256())


def read_card() -> str:
    """Return the card of the embedded model, Markdown."""
    return default_model().with_name("README.md").read_text(encoding="utf-8")


def _embedded_sha256() -> str:
    try:
        return file_sha256(default_model())
    except ModelError:  # a package without it
        return "none"
