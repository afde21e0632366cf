"""The queue over fake processes: order, states read from run folders, kills, failures, signals, slots."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import replace

import pytest

from gancore.ablation.jobs import Job, clear_stump, in_use, jobs_of, last_step, status
from gancore.ablation.queue import Queue, Slot, command_of
from gancore.errors import Interrupted, Preempted, RunFolderError

BASELINE0, R10 = Job(0, "baseline"), Job(0, "r1")


def queue_of(folder, plan, gan_process, *slots, **more):
    return Queue(folder, plan, slots or (Slot(),), gan_process.launch, **more)


def states(folder, plan):
    return {str(job): status(folder, plan, job).state for job in jobs_of(plan)}


class Killed(BaseException):
    """The queue's process is gone, at once."""


def commands(gan_process):
    return [(arguments[0], arguments[1].split("/runs/")[-1]) for arguments in gan_process.seen]


def test_every_job_is_trained_and_measured_seed_by_seed(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0, 3))
    place, ended = folder(plan), []
    queue_of(place, plan, gan_process, over=lambda job, found: ended.append((str(job), found.state))).run()
    assert ended == [
        ("baseline, seed 0", "done"),
        ("r1, seed 0", "done"),
        ("baseline, seed 3", "done"),
        ("r1, seed 3", "done"),
    ]
    assert [arguments[0] for arguments in gan_process.seen] == ["train", "eval"] * 4
    row = status(place, plan, Job(3, "r1")).row
    assert row is not None
    assert row["metrics"] == {"fid": 13.0}


def test_command_lines(plan_of, folder):
    plan = plan_of(**{"gauge.weight": 2.0})
    place, slot = folder(plan), Slot("cuda:1", 3)
    run = str(place.run(R10).path)
    waiting = status(place, plan, R10)
    assert command_of(place, plan, R10, waiting, slot) == [
        *("train", str(place.config("r1")), "--seed", "0", "--outdir", run),
        *("--device", "cuda:1", "--threads", "3"),
    ]
    # The threads of a run stay, for it to be bit-equal; its device may be another one.
    started = replace(waiting, state="started")
    assert command_of(place, plan, R10, started, slot) == ["resume", run, "--device", "cuda:1"]
    trained = replace(waiting, state="trained")
    assert command_of(place, plan, R10, trained, Slot()) == [
        *("eval", run, "--step", "10", "-p", "gauge", "-o", "methods.gauge.weight=2.0"),
    ]


@pytest.mark.parametrize("kill_after", range(1, 9))
def test_a_killed_queue_goes_on_where_it_was(plan_of, folder, gan_process, kill_after):
    """Killed after every one of the eight processes in turn, before the queue has looked at what it left."""
    plan = plan_of()
    place, ended = folder(plan), []

    def kill(arm, seed):
        ended.append(arm)
        if len(ended) == kill_after:
            raise Killed

    gan_process.before_exit = kill
    with pytest.raises(Killed):
        queue_of(place, plan, gan_process).run()
    before = len(gan_process.seen)
    queue_of(place, plan, gan_process).run()
    assert set(states(place, plan).values()) == {"done"}
    trainings = [name for what, name in commands(gan_process) if what == "train"]
    assert len(trainings) == 4  # nothing that was trained is trained again
    assert 8 <= len(gan_process.seen) <= 9
    assert before == kill_after


def test_threads_of_a_measurement_are_those_of_its_slot(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0,))
    queue_of(folder(plan), plan, gan_process, Slot("", 3)).run()
    assert [arguments[0] for arguments in gan_process.seen] == ["train", "eval"] * 2
    assert gan_process.threads == [0, 3] * 2
    assert gan_process.seen[0][-2:] == ["--threads", "3"]


def test_inexact_resumes_when_asked(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0,))
    gan_process.codes[("r1", 0)] = [75]
    queue_of(folder(plan), plan, gan_process, allow_inexact=True).run()
    assert [arguments[-1] for arguments in gan_process.seen if arguments[0] == "resume"] == ["--allow-inexact"]


def test_an_interrupted_run_is_resumed(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0,))
    place = folder(plan)
    gan_process.codes[("r1", 0)] = [75]
    said = []
    queue_of(place, plan, gan_process, say=said.append).run()
    assert [what for what, _ in commands(gan_process)] == ["train", "eval", "train", "resume", "eval"]
    assert "r1, seed 0: the process ended by SIGTERM; it is started again" in said
    assert "r1, seed 0: going on from step 5" in said
    assert states(place, plan) == {"baseline, seed 0": "done", "r1, seed 0": "done"}


def test_a_diverged_run_is_a_result(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0,))
    place = folder(plan)
    gan_process.codes[("r1", 0)] = [5]
    queue_of(place, plan, gan_process).run(retry_failed=True)
    found = status(place, plan, R10)
    assert (found.state, found.step, found.what) == ("diverged", 5, "not finite: loss/d")
    count = len(gan_process.seen)
    queue_of(place, plan, gan_process).run(retry_failed=True)  # it would do the same again
    assert len(gan_process.seen) == count


def test_a_failure_is_kept_and_tried_again_when_asked(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0,))
    place = folder(plan)
    gan_process.codes[("r1", 0)] = [0, 3]
    queue_of(place, plan, gan_process).run()
    assert status(place, plan, R10).state == "failed"
    assert status(place, plan, R10).what == "code 3 of eval"
    count = len(gan_process.seen)
    queue_of(place, plan, gan_process).run()
    assert len(gan_process.seen) == count
    queue_of(place, plan, gan_process).run(retry_failed=True)
    assert status(place, plan, R10).state == "done"
    assert commands(gan_process)[count:] == [("eval", "r1/seed-0")]


def test_a_process_that_dies_again_and_again_is_a_failure_until_the_next_start(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0,))
    place = folder(plan)
    gan_process.codes[("r1", 0)] = [-9, -9, -9]
    queue_of(place, plan, gan_process).run()
    found = status(place, plan, R10)
    assert found.state == "failed"
    assert found.what == "3 processes ended by SIGKILL at step 5; the machine may be short of memory"
    queue_of(place, plan, gan_process).run()
    assert status(place, plan, R10).state == "done"


def test_an_evaluation_without_metrics_is_a_failure(plan_of, folder, gan_process, monkeypatch):
    plan = plan_of(seeds=(0,))
    place = folder(plan)
    monkeypatch.setattr(gan_process, "measure", lambda run, arm, seed: None)
    queue_of(place, plan, gan_process).run()
    assert status(place, plan, R10).what == "the evaluation left no metrics of step 10"


def test_a_run_on_other_data_is_a_failure(plan_of, folder, gan_process):
    plan = replace(plan_of(seeds=(0,)), data_digest="cd" * 32)
    place = folder(plan)
    queue_of(place, plan, gan_process).run()
    assert "trained on other data" in status(place, plan, R10).what


def test_a_full_disk_stops_the_queue(plan_of, folder, gan_process):
    plan = plan_of()
    place = folder(plan)
    gan_process.codes[("r1", 0)] = [8]
    with pytest.raises(RunFolderError, match=r"r1, seed 0: code 8 of train; the queue goes on with: gan ablate"):
        queue_of(place, plan, gan_process).run()
    assert states(place, plan)["r1, seed 0"] == "started"


def test_runs_side_by_side(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0, 1, 2))
    place = folder(plan)
    queue_of(place, plan, gan_process, Slot("cuda:0"), Slot("cuda:1")).run()
    assert gan_process.most_at_once == 2
    assert set(states(place, plan).values()) == {"done"}
    assert {arguments[-1] for arguments in gan_process.seen if arguments[0] == "train"} == {"cuda:0", "cuda:1"}


@pytest.mark.parametrize(
    ("number", "error", "text"),
    [(signal.SIGINT, Interrupted, "interrupted"), (signal.SIGTERM, Preempted, "terminated")],
)
def test_a_signal_lets_the_processes_save(plan_of, folder, gan_process, number, error, text):
    plan = plan_of()
    place = folder(plan)

    def interrupt(progress):
        if progress.running:
            os.kill(os.getpid(), number)

    with pytest.raises(error, match=f"{text}, saved; continue with: gan ablate {place.path}"):
        queue_of(place, plan, gan_process, Slot(), Slot(), tick=interrupt).run()
    assert gan_process.at_once == 0
    assert states(place, plan) == {
        "baseline, seed 0": "started",
        "r1, seed 0": "started",
        "baseline, seed 1": "waiting",
        "r1, seed 1": "waiting",
    }
    queue_of(place, plan, gan_process).run()
    assert set(states(place, plan).values()) == {"done"}


def test_the_hours_run_out(plan_of, folder, gan_process):
    plan = plan_of()
    with pytest.raises(Preempted, match="--max-hours reached, saved"):
        queue_of(folder(plan), plan, gan_process, max_hours=1e-9).run()


def test_progress_counts_steps_of_running_jobs(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0,))
    seen = []
    queue_of(folder(plan), plan, gan_process, tick=seen.append).run()
    assert (seen[0].jobs, seen[0].jobs_over, seen[0].steps, seen[0].running) == (2, 0, 20, ("baseline, seed 0",))
    assert [progress.steps_done for progress in seen] == sorted(progress.steps_done for progress in seen)
    assert seen[-1].steps_done == 20


def test_a_process_that_outlives_its_queue_is_left_alone(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0,))
    place, said = folder(plan), []
    run = place.run(BASELINE0)
    run.path.mkdir(parents=True)
    stack = contextlib.ExitStack()
    stack.enter_context(run.locked())
    assert in_use(run)

    def release(arm, seed):
        stack.close()

    gan_process.before_exit = release  # the first process is of the other job
    queue_of(place, plan, gan_process, say=said.append).run()
    assert any("baseline, seed 0: a process of an earlier queue still works on it" in line for line in said)
    assert commands(gan_process)[0][1].endswith("configs/r1.toml")
    assert set(states(place, plan).values()) == {"done"}


def test_the_stump_of_a_killed_start_is_cleared(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0,))
    place = folder(plan)
    run = place.run(R10)
    run.samples.mkdir(parents=True)
    run.checkpoints.mkdir()
    (run.path / ".config.toml.part").touch()
    assert status(place, plan, R10).state == "waiting"
    queue_of(place, plan, gan_process).run()  # the fake gan train refuses a folder with something in it
    assert status(place, plan, R10).state == "done"


def test_a_stump_with_something_else_in_it_is_kept(plan_of, folder):
    plan = plan_of()
    run = folder(plan).run(R10)
    run.checkpoints.mkdir(parents=True)
    (run.checkpoints / "step-00000002.json").touch()
    clear_stump(run)
    assert (run.checkpoints / "step-00000002.json").exists()


def test_another_measurement_is_made_again(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0,))
    place = folder(plan)
    queue_of(place, plan, gan_process).run()
    other = replace(plan, measuring={"methods.gauge.weight": 3.0})
    assert states(place, other) == {"baseline, seed 0": "trained", "r1, seed 0": "trained"}
    count = len(gan_process.seen)
    queue_of(place, other, gan_process).run()
    assert [what for what, _ in commands(gan_process)[count:]] == ["eval", "eval"]


def test_last_step_of_a_file_that_a_kill_cut_short(plan_of, folder):
    run = folder(plan_of()).run(R10)
    assert last_step(run) == 0
    run.path.mkdir(parents=True)
    lines = [json.dumps({"step": step, "x": "y" * 3000}) for step in range(1, 60)]
    run.metrics.write_text("\n".join(lines) + '\n{"step": 6', encoding="utf-8")
    assert last_step(run) == 59


def test_a_run_that_measured_itself_is_not_measured_again(plan_of, folder, gan_process):
    plan = plan_of(seeds=(0,), **{"output.evaluate_every": 5})
    place = folder(plan)
    versions = '\n[versions.plugins.gauge]\nversion = "0.1"\n'
    gan_process.config_extra = versions
    gan_process.measures_itself = True
    queue_of(place, plan, gan_process).run()
    assert [what for what, _ in commands(gan_process)] == ["train", "train"]
    row = status(place, plan, R10).row
    assert row is not None
    assert row["metrics"] == {"fid": 10.0}
    other = replace(plan, measuring={"methods.gauge.weight": 3.0})
    queue_of(place, other, gan_process).run()
    assert [what for what, _ in commands(gan_process)[2:]] == ["eval", "eval"]
