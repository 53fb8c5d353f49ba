"""What runs of one size say of another."""

from fairlead_server.predict.cost import RunCost

SHORT_S, LIMIT_S = 0.00005, 0.002


def test_sizes_that_a_busy_machine_interrupted_come_back_to_the_loop() -> None:
    cost = RunCost(LIMIT_S)
    for _ in range(20):  # nothing is known of smaller sizes yet
        cost.add(8, 0.004)
    assert cost.units_on_loop < 8
    for _ in range(600):
        cost.add(1, SHORT_S)
        cost.add(min(2, cost.units_on_loop), SHORT_S)
        cost.add(min(4, cost.units_on_loop), SHORT_S)
    assert cost.units_on_loop >= 8


def test_interruptions_of_larger_sizes_do_not_end_the_sharing_of_runs() -> None:
    cost = RunCost(LIMIT_S)
    for _ in range(300):
        cost.add(1, SHORT_S)
        cost.add(2, 0.004)
    assert cost.units_on_loop >= 3


def test_a_size_that_takes_four_times_as_long_as_half_of_it_is_long_when_it_is() -> None:
    cost = RunCost(LIMIT_S)
    for _ in range(300):
        for place in range(6):
            cost.add(2**place, 0.00002 * 4**place)
    assert cost.units_on_loop == 2**4 - 1
