"""Seals: what a client carries for us can be read, and made, by nobody but its own organisation's gateways."""

import base64
import hmac
import secrets
from functools import cached_property
from typing import Any

import orjson
from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import select

from app.errors import BadRequest
from app.store.session import Store, insert_if_absent
from app.store.tables import SealingKey

KEY_ID = "compaction"
KEY_BYTES = 32


class BrokenSeal(BadRequest):
    """Changed on the way, made by somebody else, or another organisation's: nobody is told which."""

    code = "invalid_encrypted_content"

    def __init__(self) -> None:
        super().__init__("The encrypted_content of an item of the input is not one that was made here.", param="input")


class Seal:
    """One organisation's."""

    def __init__(self, key: bytes, org_id: str) -> None:
        self._key = key
        self._org_id = org_id

    @cached_property
    def _fernet(self) -> Fernet:
        """Few requests need it."""
        return Fernet(base64.urlsafe_b64encode(hmac.digest(self._key, self._org_id.encode(), "sha256")))

    def close(self, content: Any) -> str:
        return self._fernet.encrypt(orjson.dumps(content)).decode()

    def open(self, sealed: str) -> Any:
        """Raises BrokenSeal."""
        try:
            return orjson.loads(self._fernet.decrypt(sealed))
        except (InvalidToken, ValueError) as error:  # the latter where it is no ASCII
            raise BrokenSeal from error


class Seals:
    """All gateways of a store make the same ones."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._salts: dict[str, str] = {}

    @classmethod
    async def load(cls, store: Store) -> "Seals":
        """With the store's key, which the first gateway makes."""
        async with store.begin() as session:
            made = insert_if_absent(session, SealingKey).values(id=KEY_ID, key=secrets.token_bytes(KEY_BYTES))
            await session.execute(made)
            key = await session.scalar(select(SealingKey.key).where(SealingKey.id == KEY_ID))
        assert key is not None
        return cls(key)

    def cache_salt(self, org_id: str) -> str:
        """Keeps an organisation's prompts apart in an engine's cache; nobody who knows its id can tell it."""
        salt = self._salts.get(org_id)
        if salt is None:
            salt = self._salts[org_id] = hmac.digest(self._key, b"cache salt of " + org_id.encode(), "sha256").hex()
        return salt

    def of(self, org_id: str) -> Seal:
        return Seal(self._key, org_id)
