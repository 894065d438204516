"""Skills around a run: the catalogue before every answer.

source ──look──▶ allowed ones ──▶ system context │ tools: skill, load_skill_resource, skill_script
"""

from techrevati.agent.actions import AddContextMessage, BeforeInferenceAction, ContextMessage, Effect, Target
from techrevati.agent.behavior import AgentBehavior
from techrevati.agent.behaviours.permissions.state import SessionPermissions
from techrevati.agent.behaviours.skills.catalogue import catalogue
from techrevati.agent.behaviours.skills.library import SkillSource
from techrevati.agent.behaviours.skills.state import ActiveSkills
from techrevati.agent.behaviours.skills.tools import ACTIVATE, SkillPolicy, skill_tools
from techrevati.agent.context import ReadOnlyContext


class Skills(AgentBehavior):
    """Lists the skills that the run may use; give the agent `tools` beside it."""

    id = "skills"
    states = (ActiveSkills, SessionPermissions)

    def __init__(self, source: SkillSource, policy: SkillPolicy | None = None) -> None:
        self._source = source
        self.tools = skill_tools(source, policy)

    async def before_inference(self, ctx: ReadOnlyContext) -> Effect[BeforeInferenceAction]:
        if not any(tool.id == ACTIVATE for tool in ctx.tools):
            return None  # a list of what cannot be had
        shelf = await self._source.look()
        manifests = [skill.manifest for name, skill in shelf.skills.items() if ctx.policy.allows_skill(name)]
        text = catalogue(manifests, set(ctx.scoped_state_of(ActiveSkills).active))
        return AddContextMessage(ContextMessage("skills", text, target=Target.SYSTEM)) if text else None
