"""API keys: made once, kept as hashes; and what whoever asks with one may do."""

import hashlib
import secrets
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from app.orgs.roles import Role
from app.store.tables import ApiKey, Org

PREFIX = "sk-loam-"


@dataclass(frozen=True)
class Limits:
    """Of a key, or of an organisation: of all its keys together. None is no limit; a month is UTC's."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    monthly_budget_micros: int | None = None
    requests_at_once: int | None = None

    @property
    def throttles(self) -> bool:
        """Whether anything bounds what may be asked of models at once or in a minute."""
        bounds = (self.requests_per_minute, self.tokens_per_minute, self.requests_at_once)
        return any(bound is not None for bound in bounds)

    @classmethod
    def of(cls, row: ApiKey | Org, *, usual_at_once: int | None = None) -> Self:
        at_once = usual_at_once if row.requests_at_once is None else row.requests_at_once
        return cls(row.requests_per_minute, row.tokens_per_minute, row.monthly_budget_micros, at_once)


@dataclass(frozen=True)
class CurrentKey:
    """Who is asking: an organisation, by one of its keys. `models`, in lower case: those it may use, None for all."""

    org_id: str
    key_id: str
    role: Role
    models: frozenset[str] | None = None
    expires_at: float | None = None
    limits: Limits = Limits()
    org_limits: Limits = Limits()

    @cached_property
    def is_throttled(self) -> bool:
        return self.limits.throttles or self.org_limits.throttles

    @classmethod
    def of(cls, row: ApiKey, org: Org, *, usual_at_once: int | None = None) -> Self:
        models = None if row.models is None else frozenset(name.lower() for name in row.models)
        own, orgs = Limits.of(row), Limits.of(org, usual_at_once=usual_at_once)
        return cls(row.org_id, row.id, Role(row.role), models, row.expires_at, own, orgs)

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= time.time()

    def may_use(self, model: str) -> bool:
        """Whoever may use a fine-tune may use its checkpoints."""
        if self.models is None:
            return True
        name = model.lower()
        return name in self.models or name.partition(":ckpt-step-")[0] in self.models


def hash_key(key: str) -> str:
    """Keys carry 256 random bits, so a plain SHA-256 cannot be guessed back."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def of_secret(key: str) -> dict[str, str]:
    """What is kept of it."""
    return {"prefix": key[:12], "key_hash": hash_key(key)}
