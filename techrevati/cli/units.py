"""Numbers and foreign text, as a person at a terminal reads them."""

import re
import unicodedata

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.?)", re.DOTALL)

NOTHING = "–"


def count(number: int) -> str:
    """``950``, ``5.1k``, ``12k``, ``1.2M``: at most five characters below a billion."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if abs(number) >= size * 0.9995:
            scaled = number / size
            return f"{scaled:.1f}{unit}" if abs(scaled) < 9.95 else f"{scaled:.0f}{unit}"
    return str(number)


def dollars(micros: int) -> str:
    """Give micro-dollars as dollars: four decimals below ten dollars, two above."""
    amount = micros / 1_000_000
    return f"${amount:.4f}" if abs(amount) < 10 else f"${amount:,.2f}"


def duration(seconds: float) -> str:
    """``0.4s``, ``12.3s``, ``2m05s``, ``1h02m``, ``3d04h``."""
    if seconds < 59.95:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    if whole < 3_600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3_600}h{whole % 3_600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3_600:02d}h"


def clean(text: str) -> str:
    """Make text of a model or a tenant safe for one line: no escapes, no controls, single spaces."""
    text = " ".join(_ESCAPE.sub("", text).split())
    return "".join(char for char in text if unicodedata.category(char) not in ("Cc", "Cf", "Co", "Cs"))


def clip(text: str, width: int) -> str:
    """Cut text to `width` characters, with an ellipsis where something is gone."""
    return text if len(text) <= width else text[: max(width - 1, 0)].rstrip() + "…"
