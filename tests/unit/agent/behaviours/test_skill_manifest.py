"""SKILL.md files, good and bad."""

import pytest

from techrevati.agent.behaviours.skills.manifest import InvalidSkill, parse_skill, skill_name, tool_tokens

GOOD = """---
name: pdf-forms
description: Fills in PDF forms.
license: MIT
compatibility: needs python
metadata:
  author: someone
  version: 1.0
allowed-tools: read_file shell(git add:*) mcp__a__b
---
# Fill

Do this.
"""


def skill(front: str, body: str = "") -> str:
    return f"---\n{front}\n---\n{body}"


def test_12_3_a_skill_is_front_matter_and_instructions() -> None:
    manifest, instructions = parse_skill(GOOD)
    assert (manifest.name, manifest.description, manifest.license) == ("pdf-forms", "Fills in PDF forms.", "MIT")
    assert manifest.metadata == {"author": "someone", "version": "1.0"}
    assert manifest.allowed_tools == ("read_file", "shell(git add:*)", "mcp__a__b")
    assert instructions == "# Fill\n\nDo this."


def test_12_3_only_unscoped_tokens_grant_a_tool() -> None:
    assert parse_skill(GOOD)[0].granted_tools == ("read_file", "mcp__a__b")
    manifest, _ = parse_skill(skill("name: a\ndescription: b\nallowed-tools: ['*', 'x*', 'ok']"))
    assert manifest.granted_tools == ("ok",)


def test_12_3_lines_may_end_as_on_windows_and_begin_with_a_byte_order_mark() -> None:
    assert parse_skill("\ufeff" + GOOD.replace("\n", "\r\n"))[0].name == "pdf-forms"


def test_12_3_a_name_is_nfkc_normalised() -> None:
    assert parse_skill(skill("name: ﬁle-①\ndescription: b"))[0].name == "file-1"
    assert skill_name("ｐｄｆ ") == "pdf"
    assert parse_skill(skill("name: größe\ndescription: b"))[0].name == "größe"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("no front matter", "no front matter"),
        ("---\nname: a\n", "no front matter"),
        (skill("- a"), "not a mapping"),
        (skill("name: a\ndescription: b\nauthor: c"), "unknown key author; known: allowed-tools"),
        (skill("description: b"), "name '' is refused"),
        (skill("name: a"), "description is missing"),
        (skill("name: a\ndescription: ''"), "description is missing"),
        (skill("name: 12\ndescription: b"), "name is int, not text"),
        (skill("name: a\ndescription: [b]"), "description is list"),
        (skill("name: A\ndescription: b"), "name 'A' is refused"),
        (skill("name: a--b\ndescription: b"), "refused"),
        (skill("name: -a\ndescription: b"), "refused"),
        (skill("name: ../a\ndescription: b"), "refused"),
        (skill(f"name: {'a' * 65}\ndescription: b"), "65 characters; fix: at most 64"),
        (skill(f"name: a\ndescription: {'b' * 1025}"), "at most 1024"),
        (skill("name: a\nname: b\ndescription: c"), "'name' stands twice"),
        (skill("name: a\ndescription: &x b\nlicense: *x"), "aliases are not allowed"),
        (skill("name: !!python/object/apply:os.system [ls]\ndescription: b"), "not plain YAML"),
        (skill("name: a\ndescription: b\nmetadata: {x: [1]}"), "metadata 'x' is not plain text"),
        (skill("name: a\ndescription: b\nmetadata: 3"), "metadata is not a mapping"),
        (skill("name: a\ndescription: b\nallowed-tools: [1]"), "allowed-tools is not a list"),
        (skill("name: a\ndescription: b\nallowed-tools: {a: 1}"), "allowed-tools is not a list"),
        (skill("name: a\ndescription: 2026-13-45"), "not plain YAML"),
        (skill("name: a\ndescription: b\n? [x, y]\n: z"), "not plain YAML"),
        (skill("name: a\ndescription: " + "b" * 20_000), "front matter of"),
        (skill("name: a\ndescription: " + "[" * 5000), "not plain YAML"),
    ],
)  # fmt: skip
def test_12_3_what_is_not_a_skill_is_refused_and_says_why(text: str, cause: str) -> None:
    with pytest.raises(InvalidSkill) as caught:
        parse_skill(text, where="x/SKILL.md")
    assert cause in str(caught.value)
    assert caught.value.where == "x/SKILL.md"
    assert caught.value.code == "invalid_skill_md"


def test_12_3_dashes_in_the_instructions_do_not_end_them() -> None:
    assert parse_skill(skill("name: a\ndescription: b", "one\n---\ntwo"))[1] == "one\n---\ntwo"


def test_12_3_tool_tokens_keep_their_brackets() -> None:
    assert tool_tokens("a, b  c(x y:*),d") == ["a", "b", "c(x y:*)", "d"]
