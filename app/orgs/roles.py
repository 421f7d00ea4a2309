"""Roles: what the holder of a key may do, and which of them a route is open to."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    SERVER = "server"  # runs this server: all organisations, by the admin API
    ADMIN = "admin"  # all of its organisation's work, and its keys
    MEMBER = "member"  # all of its organisation's work
    INFERENCE = "inference"  # asks models
    READ = "read"  # looks


OPERATORS = frozenset({Role.SERVER})
ADMINS = OPERATORS | {Role.ADMIN}
MEMBERS = ADMINS | {Role.MEMBER}
READERS = MEMBERS | {Role.READ}
ASKERS = MEMBERS | {Role.INFERENCE}


@dataclass(frozen=True)
class Access:
    """Who may look (GET) at what a router's routes give, and who may do all the rest."""

    looks: frozenset[Role]
    acts: frozenset[Role]

    def roles(self, method: str) -> frozenset[Role]:
        return self.looks if method in ("GET", "HEAD") else self.acts


ASKING = Access(looks=ASKERS | READERS, acts=ASKERS)
WORK = Access(looks=READERS, acts=MEMBERS)
MODELS = Access(looks=ASKERS | READERS, acts=MEMBERS)
OWN_KEYS = Access(looks=ADMINS, acts=ADMINS)
SERVER = Access(looks=OPERATORS, acts=OPERATORS)
