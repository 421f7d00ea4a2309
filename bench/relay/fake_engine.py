"""Stands where the gateway expects the Python that has vLLM: becomes fakeup, on the cores that are not the gateway's.

fake_engine.py FAKEUP CORES -m MODULE --uds PATH --served-model-name NAME [what else vLLM is told]

A script of its own, without imports of ours, since the gateway starts it.
"""

import argparse
import os


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("fakeup")
    parser.add_argument("cores")
    parser.add_argument("--uds", required=True)
    parser.add_argument("--served-model-name", required=True)
    told, _ = parser.parse_known_args()
    os.sched_setaffinity(0, [int(core) for core in told.cores.split(",")])
    os.execv(told.fakeup, [told.fakeup, "--model", told.served_model_name, "--uds", told.uds])


if __name__ == "__main__":
    main()
