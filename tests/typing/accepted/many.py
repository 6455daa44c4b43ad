"""Many sessions, and money."""

from typing import assert_type

from vivavoce import BudgetExceeded, Pool, Price, Reconnect, Session, connect


def make() -> Session:
    prices = {"gpt-realtime": Price(text_in=4, text_out=16)}
    return connect("gpt-realtime", prices=prices, budget=2.5, reconnect=Reconnect(tries=3, max_s=2.0))


async def main() -> None:
    async with Pool(4, make, open_max=50) as pool:
        assert_type(pool, Pool)
        await pool.warm()
        async with pool.session() as session:
            assert_type(session, Session)
            try:
                assert_type(await session.ask("Hello!"), str)
            except BudgetExceeded as error:
                assert_type(error.budget, float)
            assert_type(session.meter.budget, float | None)
            assert_type(session.meter.total.tokens.output, int)
