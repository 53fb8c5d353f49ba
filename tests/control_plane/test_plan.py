"""What the core decides, in a world of data alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead import BUCKETS, Layout, Slice
from fairlead_operator.api.conditions import ConditionType, Reason
from fairlead_operator.api.v1alpha1 import Url
from fairlead_operator.core.desired import Desired, desired_from, refuse_breaking_edit
from fairlead_operator.core.observed import Health
from fairlead_operator.core.plan import Action, StartServer, StopServer, WriteRoute
from fairlead_operator.core.record import Phase, Record
from fairlead_operator.core.rollout import NO_DATA, advance
from fairlead_operator.core.status import Surroundings, status_of
from fairlead_operator.errors import EditRefused
from support.world import World, deployment, desired


def kinds(actions: tuple[Action, ...]) -> list[str]:
    return [type(action).__name__ for action in actions]


def up(wanted: Desired | None = None) -> World:
    world = World()
    world.settle(wanted or desired())
    return world


def test_servers_start_first_and_no_route_is_written_before_control_is_ready() -> None:
    world = World()
    assert kinds(world.reconcile(desired())) == ["StartServer", "StartServer"]
    assert world.reconcile(desired()) == ()
    world.become(Health.READY, "boosted")
    assert world.reconcile(desired()) == ()


def test_weight_moves_only_after_ready() -> None:
    world = World()
    world.reconcile(desired())
    world.become(Health.READY, "logistic")
    world.reconcile(desired())
    assert world.route
    assert (world.route.weight_bp("logistic"), world.route.weight_bp("boosted")) == (10_000, 0)
    world.become(Health.READY, "boosted")
    world.reconcile(desired())
    assert world.route.weight_bp("boosted") == 5000


def test_an_unchanged_spec_needs_no_action() -> None:
    assert up().reconcile(desired()) == ()


def test_changed_weights_write_one_route_and_touch_no_server() -> None:
    world = up()
    assert kinds(world.reconcile(desired({"boosted": 12.5}))) == ["WriteRoute"]
    assert world.route
    assert world.route.weight_bp("boosted") == 1250


@pytest.mark.parametrize("weight", [0, 100])
def test_two_entries_are_kept_at_either_end(weight: float) -> None:
    world = up(desired({"boosted": weight}))
    assert world.route
    assert [(d.variant, d.width_bp) for d in world.route.split] == [
        ("boosted", weight * 100),
        ("logistic", 10_000 - weight * 100),
    ]


def test_a_control_alone_still_makes_two_entries() -> None:
    world = up(desired({}, roles={"logistic": "Control"}))
    assert world.route
    assert [d.width_bp for d in world.route.split] == [10_000, 0]


def test_a_changed_digest_replaces_only_that_variant_and_is_ready_before_it_takes_over() -> None:
    world = up(desired(experiment=None))
    assert world.route
    old = world.route.revision_of("boosted")
    changed = desired(digests={"boosted": "b"}, experiment=None)
    [start] = world.reconcile(changed)
    assert isinstance(start, StartServer)
    assert start.revision.variant == "boosted"
    assert world.route.revision_of("boosted") == old
    world.become(Health.READY)
    write, stop = world.reconcile(changed)
    assert isinstance(write, WriteRoute)
    assert stop == StopServer(str(old))
    assert world.reconcile(changed) == ()


def test_weight_does_not_grow_on_the_revision_that_is_being_replaced() -> None:
    world = up(desired({"boosted": 10}, experiment=None))
    changed = desired({"boosted": 60}, digests={"boosted": "b"}, experiment=None)
    world.reconcile(changed)
    assert world.route
    assert world.route.weight_bp("boosted") == 1000
    world.become(Health.READY)
    world.reconcile(changed)
    assert world.route.weight_bp("boosted") == 6000


@pytest.mark.parametrize("health", [Health.CRASHED, Health.UNREADY, Health.STARTING])
def test_a_treatment_without_a_ready_server_gives_its_weight_to_control_and_gets_it_back(health: Health) -> None:
    world = up()
    world.become(health, "boosted")
    assert kinds(world.reconcile(desired())) == ["WriteRoute"]
    assert world.route
    assert world.route.weight_bp("boosted") == 0
    assert dict(world.route.overrides)["boosted"] is None
    world.become(Health.READY, "boosted")
    world.reconcile(desired())
    assert world.route.weight_bp("boosted") == 5000


def test_nothing_is_better_than_control() -> None:
    world = up()
    world.become(Health.CRASHED, "logistic")
    world.reconcile(desired())
    assert world.route
    assert world.route.weight_bp("logistic") == 5000


def test_no_experiment_header_is_sent_while_an_arm_is_out_of_traffic() -> None:
    for variant in ("boosted", "logistic"):
        world = up()
        assert world.route
        assert world.route.observation
        world.become(Health.CRASHED, variant)
        world.reconcile(desired())
        assert world.route.observation is None


def test_what_is_observed_is_the_law_that_the_gateway_follows() -> None:
    world = up(desired({"boosted": 10}))
    assert world.route
    observed = world.route.observation
    assert observed
    assert observed.layout == Layout.of("logistic", {"boosted": 1000})
    assert observed.layout.slices == tuple(Slice(d.variant, d.width_bp) for d in world.route.split if d.width_bp)


def test_a_treatment_that_becomes_control_takes_over_only_when_it_is_ready() -> None:
    world = up(desired(experiment=None))
    swapped = desired(
        {"logistic": 0},
        roles={"logistic": "Treatment", "boosted": "Control"},
        digests={"boosted": "b"},
        experiment=None,
    )
    world.reconcile(swapped)
    assert world.route
    assert world.route.control.variant == "logistic"
    world.settle(swapped)
    assert world.route.control.variant == "boosted"


def test_a_removed_variant_loses_its_weight_before_its_server_ends() -> None:
    world = up(desired(experiment=None))
    alone = desired({}, roles={"logistic": "Control"}, experiment=None)
    assert kinds(world.reconcile(alone)) == ["WriteRoute", "StopServer"]


def test_a_refused_server_is_its_platforms_to_try_again_until_an_edit() -> None:
    world = up()
    world.become(Health.REFUSED, "boosted")
    world.reconcile(desired())
    assert world.reconcile(desired()) == ()
    assert kinds(world.reconcile(desired(generation=2))) == ["StartServer"]


def test_a_refused_control_is_tried_again_after_an_edit_while_the_route_names_it() -> None:
    world = up()
    world.become(Health.REFUSED, "logistic")
    world.reconcile(desired())
    assert "StartServer" in kinds(world.reconcile(desired(generation=2)))
    world.settle(desired(generation=2))


def test_shadows_get_copies_when_they_are_ready_and_never_weight() -> None:
    roles = {"logistic": "Control", "boosted": "Treatment", "next": "Shadow"}
    world = up(desired(roles=roles))
    assert world.route
    before = world.route
    world.become(Health.CRASHED, "next")
    world.reconcile(desired(roles=roles))
    assert [len(route.shadows) for route in (before, world.route)] == [1, 0]
    assert before.weight_bp("next") == 0


def test_a_model_that_moves_gets_a_server_that_reads_it_where_it_is_now() -> None:
    world = up()
    moved = desired(uris={"boosted": "elsewhere.onnx"}, generation=2)
    refuse_breaking_edit(desired(), moved)
    [start] = world.reconcile(moved)[-1:]
    assert isinstance(start, StartServer)
    assert (start.revision.variant, start.revision.model.uri) == ("boosted", "elsewhere.onnx")
    world.settle(moved)
    assert sorted(server.variant for server in world.servers.values()) == ["boosted", "logistic"]


def test_a_revision_is_named_by_what_decides_its_predictions_and_by_nothing_else() -> None:
    def names(**changes: object) -> dict[str, str]:
        return {name: revision.name for name, revision in desired(**changes).revisions.items()}

    same = names()
    assert names(weights={"boosted": 1}, generation=7, experiment="e2") == same
    assert names(roles={"logistic": "Treatment", "boosted": "Control"}, weights={}) == same
    changed = names(digests={"boosted": "b"})
    assert changed["logistic"] == same["logistic"]
    assert changed["boosted"] != same["boosted"]
    for field in (
        {"hydration": {"deadline": "20ms"}},
        {"serving": {"release": "0.2.0"}},
        {"featureStore": {"path": "b"}},
    ):
        assert not set(names(**field).values()) & set(same.values())


def test_a_phase_counts_changes_of_weight_under_one_salt() -> None:
    def number(before: Record, wanted: Desired) -> int:
        after = advance(wanted, World().observed, before, NO_DATA, 0.0)
        assert after.phase
        return after.phase.number

    first = advance(desired({"boosted": 10}), World().observed, Record("0.1.0"), NO_DATA, 0.0)
    assert first.phase
    assert first.phase.number == 0
    assert number(first, desired({"boosted": 10}, digests={"boosted": "b"})) == 0
    assert number(first, desired({"boosted": 50})) == 1
    assert number(Record("0.1.0", phase=Phase(first.phase.salt, 3, {})), desired(experiment="e2")) == 0


@pytest.mark.parametrize(
    ("changes", "frozen"),
    [
        ({"digests": {"boosted": "b"}}, "the model, server release or hydration of boosted"),
        ({"hydration": {"deadline": "20ms"}}, "hydration of logistic"),
        ({"routing": {"unit": {"header": "x-other"}}}, r"spec\.routing\.unit"),
        ({"routing": {"hosts": ["other.example"]}}, r"spec\.routing\.hosts"),
        ({"routing": {"gateways": ["other/public"]}}, r"spec\.routing\.gateways"),
        ({"roles": {"logistic": "Treatment", "boosted": "Control"}, "weights": {}}, "the control"),
        ({"roles": {"logistic": "Control"}, "weights": {}}, "the list of treatments"),
    ],
)
def test_a_running_experiment_freezes_its_unit_arms_and_predictions(changes: dict[str, object], frozen: str) -> None:
    with pytest.raises(EditRefused, match=rf"^experiment e1 has frozen .*{frozen}.*new id"):
        refuse_breaking_edit(desired(), desired(**changes))
    refuse_breaking_edit(desired(experiment=None), desired(**{**changes, "experiment": None}))
    refuse_breaking_edit(desired(), desired(**{**changes, "experiment": "e2"}))


def test_hosts_and_gateways_may_change_their_order() -> None:
    there, back = ({"hosts": [*names], "gateways": [f"{name}/b" for name in names]} for names in ("ab", "ba"))
    refuse_breaking_edit(desired(routing=there), desired(routing=back))
    laws = {route.law for route in (up(desired(routing=reached)).route for reached in (there, back)) if route}
    assert len(laws) == 1


def test_weights_and_shadows_may_change_while_an_experiment_runs() -> None:
    refuse_breaking_edit(desired(), desired({"boosted": 1}))
    refuse_breaking_edit(desired(), desired(roles={"logistic": "Control", "boosted": "Treatment", "next": "Shadow"}))


NEW_YEAR_S = 1_767_225_600.0
AROUND = Surroundings(url=Url(rest="http://x", grpc="x"), now_s=NEW_YEAR_S)


def conditions(world: World, around: Surroundings = AROUND) -> dict[ConditionType, tuple[str, Reason]]:
    status = status_of(deployment(), desired(), world.observed, world.record, around)
    return {condition.type: (condition.status, condition.reason) for condition in status.conditions}


def test_a_status_tells_what_answers_apart_from_what_was_asked_for() -> None:
    world = up()
    assert conditions(world)[ConditionType.READY] == ("True", Reason.AS_SPECIFIED)
    world.become(Health.CRASHED, "boosted")
    world.reconcile(desired())
    found = conditions(world)
    assert found[ConditionType.SERVABLE] == ("True", Reason.AS_SPECIFIED)
    assert found[ConditionType.READY] == ("False", Reason.CRASHED)
    assert found[ConditionType.ROUTING_READY] == ("False", Reason.WEIGHT_WITHDRAWN)


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        (Health.STARTING, Reason.STARTING),
        (Health.UNREADY, Reason.NOT_READY),
        (Health.CRASHED, Reason.CRASHED),
        (Health.REFUSED, Reason.MODEL_REFUSED),
    ],
)
def test_every_health_has_its_reason(health: Health, reason: Reason) -> None:
    world = up()
    world.become(health, "logistic")
    world.reconcile(desired())
    found = conditions(world)
    assert found[ConditionType.VARIANTS_READY] == ("False", reason)
    assert found[ConditionType.ROUTING_READY] == ("False", Reason.DEGRADED)


def test_an_invalid_edit_and_a_refused_route_are_conditions() -> None:
    around = Surroundings(AROUND.url, NEW_YEAR_S, edit_problem="m.yaml:3: no", gateway_problem=None)
    assert conditions(up(), around)[ConditionType.READY] == ("False", Reason.INVALID_SPEC)
    around = Surroundings(AROUND.url, NEW_YEAR_S, gateway_problem="Envoy refused routes.json")
    assert conditions(up(), around)[ConditionType.READY] == ("False", Reason.GATEWAY_REFUSED)


def test_a_condition_keeps_the_time_of_its_last_transition() -> None:
    world, before = up(), deployment()
    status = status_of(before, desired(), world.observed, world.record, AROUND)
    later = Surroundings(AROUND.url, NEW_YEAR_S + 86400)
    before = before.model_copy(update={"status": status})
    world.become(Health.CRASHED, "boosted")
    world.reconcile(desired())
    times = {
        c.type: c.last_transition_time[:10]
        for c in status_of(before, desired(), world.observed, world.record, later).conditions
    }
    assert times[ConditionType.SERVABLE] == "2026-01-01"
    assert times[ConditionType.READY] == "2026-01-02"


def test_what_servers_told_stays_told_until_they_are_asked_again() -> None:
    world, before = up(), deployment()
    asked = {name: replace(server, contract_digest="sha256:c") for name, server in world.observed.servers.items()}
    unasked = {name: replace(server, contract_digest=None) for name, server in asked.items()}
    told = status_of(before, desired(), replace(world.observed, servers=asked), world.record, AROUND)
    after = before.model_copy(update={"status": told})
    restarted = replace(world.observed, servers=unasked)
    assert status_of(after, desired(), restarted, world.record, AROUND) == told
    fresh = status_of(before, desired(), restarted, world.record, AROUND)
    assert Reason.FEATURES_UNKNOWN in {one.reason for one in fresh.conditions}


ROLES = st.sampled_from(
    [
        {"a": "Control"},
        {"a": "Control", "b": "Treatment"},
        {"b": "Control", "a": "Treatment"},
        {"a": "Control", "b": "Treatment", "c": "Treatment"},
        {"a": "Control", "b": "Treatment", "c": "Shadow"},
        {"c": "Control", "a": "Shadow", "b": "Treatment"},
    ]
)


@st.composite
def wishes(draw: st.DrawFn) -> Desired:
    roles = draw(ROLES)
    treatments = [name for name, role in roles.items() if role == "Treatment"]
    return desired_from(
        deployment(
            {name: draw(st.integers(0, 10_000 // len(treatments))) / 100 for name in treatments},
            digests={name: draw(st.sampled_from("ab")) for name in roles},
            roles=roles,
            experiment=draw(st.sampled_from(["e1", "e2", None])),
            generation=draw(st.integers(1, 5)),
        ),
        "0.1.0",
    )


HEALTHS = st.sampled_from(list(Health))


@settings(max_examples=300, deadline=None)
@given(
    history=st.lists(st.tuples(wishes(), st.integers(0, 4), st.lists(HEALTHS, max_size=4)), max_size=6),
    last=wishes(),
    needs_filter=st.booleans(),
)
def test_any_world_converges_and_every_write_on_the_way_keeps_the_law(
    history: list[tuple[Desired, int, list[Health]]], last: Desired, needs_filter: bool
) -> None:
    """``World`` asserts at each action: weights sum to 10000, two entries, nothing not ready gains weight."""
    world = World(gateway_needs_filter=needs_filter)
    for wanted, stop_after, healths in history:
        world.reconcile(wanted, stop_after=stop_after)
        for server, health in zip(list(world.servers.values()), healths, strict=False):
            world.become(health, server.variant)
    world.settle(last)
    world.wait(last.strategy.keep_previous_s + 1)
    world.settle(last)
    assert world.route
    weights = last.strategy.steps[0].weights_bp
    assert {arm: world.route.weight_bp(arm) for arm in weights} == weights
    assert set(world.servers) == {revision.name for revision in last.revisions.values()}
    assert sum(d.width_bp for d in world.route.split) == BUCKETS
