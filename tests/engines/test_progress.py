"""How far a start is, by lines as vLLM 0.32 writes them."""

import pytest

from app.engines.progress import Progress, progress_of

UP = "(APIServer pid=7) INFO 11-24 11:02:30 [model.py:733] Resolved architecture: Qwen3ForCausalLM"
LOADING = "(Worker pid=9) INFO 11-24 11:02:31 [cpu_model_runner.py:68] Starting to load model /models/x..."
SHARD = "Loading safetensors checkpoint shards:  {}% Completed | 1/2 [00:00<00:00,  3.11it/s]"
LOADED = "(Worker pid=9) INFO 11-24 11:02:31 [default_loader.py:501] Loading weights took 0.02 seconds"
COMPILING = "(EngineCore pid=8) INFO 11-24 [gpu_model_runner.py:5] Capturing CUDA graphs (mixed prefill-decode): 3%"
INIT = "(EngineCore pid=8) INFO 11-24 [core.py:402] init engine (profile, create kv cache, warmup model) took 1.04 s"


@pytest.mark.parametrize(
    ("lines", "progress"),
    [
        ([], Progress("starting", 0.0)),
        (["standing by after 8.0 seconds"], Progress("starting", 0.0)),
        ([UP], Progress("configuring", 0.1)),
        ([UP, LOADING], Progress("loading_weights", 0.2)),
        ([UP, LOADING, SHARD.format(50)], Progress("loading_weights", 0.45)),
        ([UP, LOADING, SHARD.format(50), SHARD.format(0)], Progress("loading_weights", 0.45)),
        ([UP, LOADING, SHARD.format(100), LOADED], Progress("preparing", 0.7)),
        ([UP, LOADING, LOADED, COMPILING, UP], Progress("compiling", 0.75)),
        ([UP, LOADING, LOADED, INIT], Progress("serving", 0.95)),
    ],
)
def test_each_stage_is_known_by_its_first_line(lines: list[str], progress: Progress) -> None:
    assert progress_of(lines) == progress
