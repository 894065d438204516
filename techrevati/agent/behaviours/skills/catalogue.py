"""The list of skills that the model sees."""

from collections.abc import Collection, Iterable
from html import escape

from techrevati.agent.behaviours.skills.manifest import Manifest

MAX_ENTRIES = 32
MAX_BYTES = 16 * 1024
_HEAD = "Skills you can take up with the `skill` tool when a task fits; their instructions follow then."


def catalogue(
    manifests: Iterable[Manifest],
    active: Collection[str] = (),
    *,
    max_entries: int = MAX_ENTRIES,
    max_bytes: int = MAX_BYTES,
) -> str:
    """Give the list, sorted by name; what does not fit is counted at its end.  "" for no skills.

    Text of skills is escaped: a description cannot close the list and speak as the system.
    """
    known = sorted(manifests, key=lambda manifest: manifest.name)
    if not known:
        return ""
    lines, size = [], len(_HEAD) + 200  # for the frame and the note at the end
    for manifest in known[:max_entries]:
        state = ' active="true"' if manifest.name in active else ""
        text = escape(" ".join(manifest.description.split()), quote=False)
        line = f"<skill{state}><name>{escape(manifest.name)}</name><description>{text}</description></skill>"
        if size + len(line.encode()) + 1 > max_bytes:
            break
        lines.append(line)
        size += len(line.encode()) + 1
    left = len(known) - len(lines)
    note = [f"<!-- {left} more skills are not listed -->"] if left else []
    return "\n".join([_HEAD, "<available_skills>", *lines, *note, "</available_skills>"])
