"""Formats of strings that an engine's own grammar holds too loosely, as patterns that say all of them. Pure.

Its dates know months of 31 days only, its minutes have 61 seconds, and its numbers of addresses may begin with zeros.
"""

LEAP_YEAR = r"(\d\d(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
YEAR = r"([1-9]\d{3}|0[1-9]\d\d|00[1-9]\d|000[1-9])"
LONG_MONTH_DAY = r"(0[13578]|1[02])-(0[1-9]|[12]\d|3[01])"
SHORT_MONTH_DAY = r"(0[469]|11)-(0[1-9]|[12]\d|30)"
DATE = rf"({YEAR}-({LONG_MONTH_DAY}|{SHORT_MONTH_DAY}|02-(0[1-9]|1\d|2[0-8]))|{LEAP_YEAR}-02-29)"
HOUR_MINUTE = r"([01]\d|2[0-3]):[0-5]\d"
TIME = rf"{HOUR_MINUTE}:[0-5]\d(\.\d{{1,9}}|)(Z|[+-]{HOUR_MINUTE})"
BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"

PATTERNS = {
    "date": f"^{DATE}$",
    "time": f"^{TIME}$",
    "date-time": f"^{DATE}T{TIME}$",
    "ipv4": rf"^({BYTE}\.){{3}}{BYTE}$",
}
