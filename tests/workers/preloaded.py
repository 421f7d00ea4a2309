"""What the recipes of tests have imported when they begin."""

import os

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")

import workers.sft  # noqa: F401 - under these settings
