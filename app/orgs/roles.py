"""Roles: what the holder of a key may do."""

from enum import StrEnum


class Role(StrEnum):
    SERVER = "server"  # runs this server: all organisations, by the admin API
    ADMIN = "admin"  # all of its organisation's work, and its keys
    MEMBER = "member"  # all of its organisation's work
    INFERENCE = "inference"  # asks models
    READ = "read"  # looks
