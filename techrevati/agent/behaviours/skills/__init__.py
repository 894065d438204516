"""Skills: directories of instructions, files and scripts that an agent can take up.

Needs the ``skills`` extra.
"""

from techrevati.agent.behaviours.skills.behaviour import Skills
from techrevati.agent.behaviours.skills.files import BadResource, FileText
from techrevati.agent.behaviours.skills.library import (
    DirectorySkills,
    EmbeddedSkill,
    EmbeddedSkills,
    Shelf,
    Skill,
    SkillSource,
    SkillSources,
)
from techrevati.agent.behaviours.skills.manifest import InvalidSkill, Manifest, parse_skill
from techrevati.agent.behaviours.skills.scripts import ScriptLimits, ScriptResult
from techrevati.agent.behaviours.skills.state import ActivateSkill, ActiveSkills
from techrevati.agent.behaviours.skills.tools import SkillPolicy, skill_tools

__all__ = [
    "ActivateSkill",
    "ActiveSkills",
    "BadResource",
    "DirectorySkills",
    "EmbeddedSkill",
    "EmbeddedSkills",
    "FileText",
    "InvalidSkill",
    "Manifest",
    "ScriptLimits",
    "ScriptResult",
    "Shelf",
    "Skill",
    "SkillPolicy",
    "SkillSource",
    "SkillSources",
    "Skills",
    "parse_skill",
    "skill_tools",
]
