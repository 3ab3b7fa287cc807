"""Where a command does its work: in this process, or on Ray."""

from __future__ import annotations

from dataclasses import dataclass

from jielong.config.hints import nearest
from jielong.errors import ConfigError

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """Where work is done; what comes out is the same.

    Attributes:
        name: local or ray.
        address: of a Ray cluster, HOST:PORT or auto; None starts Ray on this machine.
    """

    name: str = "local"
    address: str | None = None

    @classmethod
    def of(cls, name: str, address: str | None = None) -> Engine:
        """Check what was given.

        Raises:
            ConfigError: there is no such engine, or an address without Ray.
        """
        if name not in ENGINES:
            raise ConfigError(
                f"engine={name!r} is not one of {', '.join(ENGINES)}{nearest(name, ENGINES)}"
            )
        if address is not None and name != "ray":
            raise ConfigError(f"ray_address={address!r} needs engine=ray: give --engine ray too")
        if address is not None and address.startswith("ray://"):
            raise ConfigError(
                f"ray_address={address!r}: Ray's client is not used: run the command on a machine "
                "of the cluster with --ray-address auto"
            )
        return cls(name, address)

    @property
    def is_ray(self) -> bool:
        return self.name == "ray"


LOCAL = Engine()
