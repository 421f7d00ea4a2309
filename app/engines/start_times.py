"""How long engines took to start, kept on disk: what can be told to who waits for the next start."""

from pathlib import Path
from statistics import median

import orjson
import structlog

log = structlog.get_logger()

KEPT = 5


def estimate_seconds(file: Path, model_id: str, gpu: str) -> float | None:
    """Of a start of this model on this GPU type, by the last few of them; None before the first."""
    known = _read(file).get(_key(model_id, gpu))
    return round(median(known), 1) if known else None


def remember_start(file: Path, model_id: str, gpu: str, seconds: float) -> None:
    """What cannot be kept is lost: an estimate is not worth a failed start."""
    times = _read(file)
    key = _key(model_id, gpu)
    times[key] = [*times.get(key, []), round(seconds, 2)][-KEPT:]
    part = file.with_suffix(".part")
    try:
        part.write_bytes(orjson.dumps(times))
        part.rename(file)
    except OSError as error:
        log.warning("the time of a start is not kept", reason=str(error))


def _key(model_id: str, gpu: str) -> str:
    return f"{model_id} {gpu}"


def _read(file: Path) -> dict[str, list[float]]:
    try:
        times = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return times if isinstance(times, dict) else {}
