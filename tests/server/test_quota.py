from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.server.quota import Account, Accounts, Quota


def test_a_bucket_begins_full_and_fills_at_an_even_rate() -> None:
    quota = Quota(10, per_s=2)
    assert quota.take(10, now=100.0)
    assert not quota.take(1, now=100.4)
    assert quota.take(1, now=100.5)
    assert quota.remaining(now=102.0) == 3
    assert quota.reset_seconds(now=102.0) == pytest.approx(3.5)
    assert quota.remaining(now=1_000.0) == 10
    assert quota.reset_seconds(now=1_000.0) == 0


def test_what_is_not_there_is_not_taken_in_part() -> None:
    quota = Quota.a_minute(60)
    assert not quota.take(61, now=0.0)
    assert quota.remaining(now=0.0) == 60
    assert quota.take(60, now=0.0)
    assert quota.reset_seconds(now=0.0) == pytest.approx(60)


def test_what_was_not_used_goes_back_up_to_the_limit() -> None:
    quota = Quota(10, per_s=1)
    quota.take(6, now=0.0)
    quota.give_back(4)
    assert quota.remaining(now=0.0) == 8
    quota.give_back(100)
    assert quota.remaining(now=0.0) == 10


def test_what_is_used_up_already_may_be_owed() -> None:
    quota = Quota(10, per_s=1)
    quota.spend(15, now=0.0)
    assert quota.remaining(now=0.0) == 0
    assert quota.reset_seconds(now=0.0) == pytest.approx(15)
    assert quota.seconds_until(1, now=0.0) == pytest.approx(6)
    assert not quota.take(1, now=5.5)
    assert quota.take(1, now=6.0)


def test_a_clock_that_goes_back_fills_nothing_twice() -> None:
    quota = Quota(10, per_s=1)
    quota.take(10, now=10.0)
    assert quota.remaining(now=14.0) == 4
    assert quota.remaining(now=2.0) == 4
    assert quota.remaining(now=15.0) == 5


@pytest.mark.parametrize(("limit", "per_s"), [(0, 1), (1, 0), (-1, 1)])
def test_a_bucket_needs_a_limit_and_a_rate(limit: float, per_s: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Quota(limit, per_s)


@given(
    st.integers(1, 100),
    st.floats(0.01, 100),
    st.lists(st.tuples(st.floats(0, 50), st.integers(0, 120)), max_size=40),
)
def test_never_more_is_taken_than_the_limit_and_what_flows_in(
    limit: int, per_s: float, steps: list[tuple[float, int]]
) -> None:
    quota, now, taken = Quota(limit, per_s), 0.0, 0
    for pause, wanted in steps:
        now += pause
        if quota.take(wanted, now):
            taken += wanted
        assert taken <= limit + now * per_s + 1e-6
        assert 0 <= quota.remaining(now) <= limit
        assert 0 <= quota.reset_seconds(now) <= limit / per_s + 1e-6


def test_a_key_keeps_its_account_and_the_number_of_accounts_is_bounded() -> None:
    accounts = Accounts(lambda: Account(sessions=Quota(1, per_s=1)), accounts_max=2)
    first, second = accounts.of("first"), accounts.of("second")
    assert accounts.of("first") is first
    accounts.of("third")
    assert len(accounts) == 2
    assert accounts.of("first") is first
    assert accounts.of("second") is not second, "the one that was not asked for longest is forgotten"
