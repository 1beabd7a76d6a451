"""What every result carries so that it can be made again."""

from dataclasses import asdict
from importlib.metadata import version

from halfdome.hdl.config import CardConfig


def stamp(config: CardConfig, seed: int) -> dict:
    """Version, configuration and its hash, seed."""
    return {
        "halfdome_version": version("halfdome"),
        "config_hash": config.hash,
        "config": asdict(config),
        "seed": seed,
    }
