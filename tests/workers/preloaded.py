"""What forked processes of tests have imported when they begin."""

import os
from importlib import import_module

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
for name in ("workers.worker", "workers.sft"):  # the latter where torch is
    import_module(name)
