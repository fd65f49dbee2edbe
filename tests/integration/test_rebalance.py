"""Workers join and leave under traffic: no event is lost, and none is billed twice."""

import time

from pipeline_rig import Pipeline, Traffic


def test_one_to_two_to_three_to_five_workers_and_back(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(30)
    with traffic.streaming(300):
        for workers in (1, 3, 5, 2):
            pipeline.start(workers)
            time.sleep(1)
    traffic.check()


def test_a_worker_that_dies_while_others_join(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(30)
    with traffic.streaming(300):
        pipeline.start(3)
        pipeline.kill("worker-1")
        pipeline.start(2)
    traffic.check()
