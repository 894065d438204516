"""The guide to state is one program, and it runs."""

from tests.unit.project.documents import ROOT, blocks

GUIDE = ROOT / "docs" / "guides" / "agent-state.md"


def test_the_guide_runs_from_top_to_bottom() -> None:
    names: dict[str, object] = {"__name__": "guide"}
    found = list(blocks("python", GUIDE))
    for block in found:
        source = "\n" * (block.line - 1) + block.code  # so that a failure names the guide's line
        exec(compile(source, str(GUIDE), "exec"), names)
    assert len(found) == GUIDE.read_text("utf-8").count("```python") == 6
