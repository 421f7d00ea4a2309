"""Stands where the gateway expects the Python that has vLLM: becomes fakeup, on the cores that are not the gateway's.

fake_engine.py FAKEUP CORES [what the gateway tells a Python], and then its order on standard input

A script of its own, without imports of ours, since the gateway starts it.
"""

import argparse
import json
import os
import sys


def main() -> None:
    fakeup, cores, *_ = sys.argv[1:]
    order = json.loads(sys.stdin.readline() or sys.exit())
    parser = argparse.ArgumentParser()
    parser.add_argument("--uds", required=True)
    parser.add_argument("--served-model-name", required=True)
    told, _ = parser.parse_known_args(order["arguments"])
    os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    os.execv(fakeup, [fakeup, "--model", told.served_model_name, "--uds", told.uds])


if __name__ == "__main__":
    main()
