"""One session of simulated traffic against a running API: what `selfheal simulate` runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from selfheal.adapters.datasets import load_dataset
from selfheal.domain.contract import load_contract
from selfheal.kit.errors import ConfigurationError
from selfheal.simulate.traffic import TrafficStats, traffic_to

if TYPE_CHECKING:
    from rich.console import Console

    from selfheal.settings import Settings
from selfheal.domain.scenarios import scenario_rows


async def send_scenario(
    settings: Settings,
    api_url: str,
    scenario: str,
    *,
    n_rows: int,
    rate_per_second: float,
    label_delay_seconds: float,
    start: int,
    seed: int,
    console: Console,
) -> TrafficStats:
    """Send rows of the data set, from `start` on and repeatedly, with a progress bar, until all labels are delivered."""
    from rich.progress import Progress

    contract = load_contract(settings.use_case)
    dataset = load_dataset(settings, contract, all_rows=True)
    if start >= len(dataset.frame):
        raise ConfigurationError(f"--start {start} is beyond the data set's {len(dataset.frame):,} rows")
    chosen = dataset.frame.iloc[(start + np.arange(n_rows)) % len(dataset.frame)].reset_index(drop=True)
    rows = scenario_rows(chosen, contract, scenario, seed)
    console.print(f"Sending {n_rows:,} of {dataset.description}, scenario {scenario}, to {api_url}")
    async with traffic_to(
        api_url,
        rate_per_second=rate_per_second,
        label_delay_seconds=label_delay_seconds,
        source="simulate",
        api_key=settings.own_api_key,
    ) as sender:
        with Progress(console=console) as progress:
            task = progress.add_task("predictions", total=n_rows)
            sending = asyncio.create_task(sender.send(rows, contract))
            while not sending.done():
                progress.update(task, completed=sender.stats.predictions)
                await asyncio.sleep(0.2)
            progress.update(task, completed=sender.stats.predictions)
        await sending
        await asyncio.sleep(label_delay_seconds)
        await sender.deliver_all_labels()
        return sender.stats
