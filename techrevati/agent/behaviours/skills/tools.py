"""The three tools through which a model uses skills."""

import asyncio
from dataclasses import asdict, dataclass, field
from typing import Any

from techrevati.agent.actions import AddUserMessage, AfterToolExecuteAction
from techrevati.agent.behaviours.permissions.rules import Effect, Rule
from techrevati.agent.behaviours.permissions.state import AddRule, SessionPermissions
from techrevati.agent.behaviours.skills.files import BadResource
from techrevati.agent.behaviours.skills.library import Skill, SkillSource
from techrevati.agent.behaviours.skills.manifest import skill_name
from techrevati.agent.behaviours.skills.scripts import ScriptLimits, run_script
from techrevati.agent.behaviours.skills.state import ActivateSkill, ActiveSkills
from techrevati.agent.state.spec import AnyStateAction
from techrevati.agent.tool_context import ToolCallContext
from techrevati.agent.tools import ToolError, ToolExecutionEffect, ToolResult
from techrevati.agent.typed_tool import FunctionTool, tool

ACTIVATE, READ, RUN = "skill", "load_skill_resource", "skill_script"


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillPolicy:
    """What skills may do.

    Attributes:
        grant_tools: A skill that is taken up allows the tools it names, for the rest of the run.  Denials stand.
        scripts: Limits of scripts; None: scripts are not run at all.
        max_resource: Bytes of a resource that are shown.
    """

    grant_tools: bool = True
    scripts: ScriptLimits | None = field(default_factory=ScriptLimits)
    max_resource: int = 128 * 1024


async def find_skill(source: SkillSource, name: str, ctx: ToolCallContext) -> Skill:
    """Find a skill that this run may use.

    Raises:
        ToolError: with the code ``unknown_skill``, ``forbidden_skill`` or ``invalid_skill_md``.
    """
    shelf, known = await source.look(), skill_name(name)
    if not ctx.policy.allows_skill(known):
        raise ToolError(f"skill {known!r} is not allowed by the run policy", "denied", "forbidden_skill")
    if found := shelf.skills.get(known):
        return found
    if bad := next((error for where, error in shelf.unusable.items() if skill_name(where) == known), None):
        raise ToolError(str(bad), "execution_failed", "invalid_skill_md")
    names = sorted(each for each in shelf.skills if ctx.policy.allows_skill(each))
    raise ToolError(f"no skill {known!r}; there are: {', '.join(names) or 'none'}", "not_found", "unknown_skill")


def skill_tools(source: SkillSource, policy: SkillPolicy | None = None) -> tuple[FunctionTool, ...]:
    """Make the tools: ``skill``, ``load_skill_resource`` and, if scripts may run, ``skill_script``."""
    rules = policy or SkillPolicy()

    @tool(id=ACTIVATE, states=(ActiveSkills, SessionPermissions))
    async def activate(name: str, ctx: ToolCallContext) -> ToolExecutionEffect:
        """Take up a skill: its instructions follow, and the tools it names may be used."""
        found = await find_skill(source, name, ctx)
        manifest = found.manifest
        text = f'<skill name="{manifest.name}">\n{found.instructions}\n</skill>'
        actions: list[AfterToolExecuteAction] = [
            AnyStateAction.new(ActiveSkills, ActivateSkill(manifest.name)),
            AddUserMessage(text, visibility="internal"),
        ]
        granted = manifest.granted_tools if rules.grant_tools else ()
        actions += [
            AnyStateAction.new(SessionPermissions, AddRule(str(Rule(Effect.ALLOW, token)))) for token in granted
        ]
        data = {"skill": manifest.name, "active": True, "granted_tools": list(granted)}
        return ToolExecutionEffect(ToolResult.success(ACTIVATE, data), tuple(actions))

    @tool(id=READ)
    async def load_resource(skill: str, path: str, ctx: ToolCallContext) -> dict[str, Any]:
        """Read a file of a skill: a path that begins with references/ or assets/."""
        found = await find_skill(source, skill, ctx)
        try:
            read = await asyncio.to_thread(found.resource, path, limit=rules.max_resource)
        except BadResource as error:
            raise ToolError(str(error), "invalid_arguments", "unknown_resource") from error
        return {"skill": found.manifest.name, **asdict(read)}

    limits = rules.scripts
    if limits is None:
        return activate, load_resource

    @tool(id=RUN, repeatable=False)
    async def run(skill: str, path: str, ctx: ToolCallContext, arguments: list[str] | None = None) -> ToolResult:
        """Run a script of a skill: a path that begins with scripts/, and its arguments."""
        found = await find_skill(source, skill, ctx)
        try:
            script, directory = await asyncio.to_thread(found.script, path)
            done = await run_script(
                script,
                arguments or [],
                directory=directory,
                limits=limits,
                environment={"SKILL_CALL_ID": ctx.idempotency_key},
            )
        except BadResource as error:
            raise ToolError(str(error), "invalid_arguments", "unknown_script") from error
        except OSError as error:
            raise ToolError(f"{path!r} cannot be started: {error}", code="script_failed") from error
        data = {"skill": found.manifest.name, "path": path, **asdict(done)}
        if done.timed_out:
            failure = ToolResult.error(RUN, f"{path} did not end within {limits.timeout:g} s", code="script_timeout")
            failure.data.update(data)
            return failure
        if done.exit_code != 0:
            return ToolResult.warning(RUN, data, f"{path} ended with exit code {done.exit_code}")
        return ToolResult.success(RUN, data)

    return activate, load_resource, run
