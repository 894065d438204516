"""§5.4 and §5.5: how long states live, what is cleaned away, and where the runtime's own stand."""

import pytest

from techrevati.agent.state import (
    Delete,
    Document,
    Patch,
    ScopeRegistry,
    Set,
    StateRegistry,
    StateScope,
    StateSpec,
    apply,
    cleanup_after_call,
    cleanup_for_new_call,
    cleanup_for_next_run,
    cleanup_of_old_calls,
    paths,
)


class Budget(StateSpec):
    PATH = ("budget", "this_run")
    SCOPE = StateScope.RUN
    spent: int = 0

    def reduce(self, action: int) -> None:
        self.spent += action


class Profile(StateSpec):
    PATH = ("profile",)
    name: str = ""

    def reduce(self, action: str) -> None:
        self.name = action


STATES = StateRegistry([Budget, Profile])
CALLS = {"c1": {"tool_call_state": {"status": "suspended"}, "suspended_call": {"call_id": "c1"}}}


def document() -> Document:
    return {
        "__run": {"id": "r1", "status": "waiting"},
        "__tool_call_scope": CALLS,
        "__kernel": {"stop_policy_runtime": {"total_input_tokens": {"r1": 5}}},
        "budget": {"this_run": {"spent": 5}, "other": 1},
        "profile": {"name": "Ada"},
    }


def test_5_4_thread_state_is_never_removed_by_itself() -> None:
    for said in (True, False):
        after = apply(document(), cleanup_for_next_run(document(), STATES.scopes, new_user_input=said))
        assert after["profile"] == {"name": "Ada"}


def test_5_4_run_state_goes_when_the_next_run_is_prepared() -> None:
    after = apply(document(), cleanup_for_next_run(document(), STATES.scopes, new_user_input=False))
    assert after == {
        "__tool_call_scope": CALLS,
        "__kernel": {},
        "budget": {"other": 1},
        "profile": {"name": "Ada"},
    }


def test_5_4_a_new_user_message_abandons_what_waits_for_a_decision() -> None:
    after = apply(document(), cleanup_for_next_run(document(), STATES.scopes, new_user_input=True))
    assert "__tool_call_scope" not in after


def test_5_4_a_run_of_decisions_only_keeps_what_waits() -> None:
    after = apply(document(), cleanup_for_next_run(document(), STATES.scopes, new_user_input=False))
    assert after["__tool_call_scope"] == CALLS


def test_5_4_what_is_not_there_is_not_deleted() -> None:
    assert not cleanup_for_next_run({"profile": {}}, STATES.scopes, new_user_input=True)


def test_5_4_cleanup_is_computed_from_the_state_as_rebuilt() -> None:
    """A run that crashed left its state in a patch only: not in the snapshot it started from."""
    base: Document = {"profile": {"name": "Ada"}}
    crashed = Patch((Set(("budget", "this_run"), {"spent": 5}), Set(("__tool_call_scope", "c1"), {})))
    rebuilt = apply(base, crashed)
    after = apply(rebuilt, cleanup_for_next_run(rebuilt, STATES.scopes, new_user_input=True))
    assert after == {"profile": {"name": "Ada"}, "budget": {}}


def test_5_4_an_ended_call_loses_its_suspension_and_keeps_its_state() -> None:
    after = apply(document(), cleanup_after_call(document(), "c1"))
    assert after["__tool_call_scope"] == {"c1": {"tool_call_state": {"status": "suspended"}}}
    assert not cleanup_after_call(after, "c1") and not cleanup_after_call(after, "c2")


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_5_4_a_call_id_used_again_does_not_meet_its_ended_namesake(status: str) -> None:
    ended: Document = {"__tool_call_scope": {"c1": {"tool_call_state": {"status": status}, "mine": {"n": 1}}}}
    assert cleanup_for_new_call(ended, "c1") == Patch((Delete(("__tool_call_scope", "c1")),))
    assert not cleanup_for_new_call(ended, "c2")


@pytest.mark.parametrize("status", ["new", "running", "suspended", "resuming"])
def test_5_4_a_call_that_goes_on_keeps_what_it_has(status: str) -> None:
    assert not cleanup_for_new_call({"__tool_call_scope": {"c1": {"tool_call_state": {"status": status}}}}, "c1")


def test_5_4_the_scope_of_a_state_is_the_thread_unless_it_says_otherwise() -> None:
    assert Profile.SCOPE is StateScope.THREAD
    assert [scope.value for scope in StateScope] == ["thread", "run", "tool_call"]


def test_5_4_run_states_at_other_paths_are_cleaned_too() -> None:
    states = StateRegistry()
    states.register(Budget, at=("teams", "a.b"))
    found = cleanup_for_next_run({"teams": {"a.b": {}}}, states.scopes, new_user_input=False)
    assert found == Patch((Delete(("teams", "a.b")),))


def test_5_5_the_runtimes_paths() -> None:
    assert paths.RUN == ("__run",)
    assert paths.call_path("c", paths.TOOL_CALL_STATE) == ("__tool_call_scope", "c", "tool_call_state")
    assert paths.call_path("c", paths.SUSPENDED_CALL) == ("__tool_call_scope", "c", "suspended_call")
    assert paths.STOP_POLICY == ("__kernel", "stop_policy_runtime")
    assert (paths.SUB_AGENTS, paths.REMINDERS, paths.SKILLS) == (("sub_agents",), ("reminders",), ("skills",))
    assert (paths.PERMISSIONS, paths.PERMISSION_POLICY) == (("permissions",), ("permission_policy",))
    assert paths.BACKGROUND_TASKS == ("__derived", "background_tasks")


def test_5_5_the_runs_own_state_is_always_cleaned() -> None:
    assert {("__run",), ("__kernel", "stop_policy_runtime")} <= set(ScopeRegistry().run_paths)


def ended_calls(*statuses: str) -> Document:
    scopes = {
        f"c{place}": {"tool_call_state": {"status": status, "updated_at": 1000 - place}}
        for place, status in enumerate(statuses)
    }
    return {"__tool_call_scope": scopes, "mine": 1}


def test_oldest_ended_calls_of_a_long_run_are_let_go() -> None:
    document = ended_calls("succeeded", "failed", "cancelled")
    after = apply(document, cleanup_of_old_calls(document, 2))
    assert set(after["__tool_call_scope"]) == {"c0", "c1"}, "the newest by their time"
    assert after["mine"] == 1
    assert not cleanup_of_old_calls(after, 2)
    assert not cleanup_of_old_calls({}, 0)


@pytest.mark.parametrize("status", ["new", "running", "suspended", "resuming"])
def test_ended_calls_stay_while_another_is_open(status: str) -> None:
    assert not cleanup_of_old_calls(ended_calls("succeeded", status, "succeeded"), 1)
