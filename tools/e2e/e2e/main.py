"""Arguments, and the frame around the story: what is made is taken away again, whatever happens."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from e2e import evidence, plan
from e2e.bundled import Bundled
from e2e.clusters import Cluster
from e2e.errors import E2eError, Usage
from e2e.kind import Kind
from e2e.programs import ROOT, Programs
from e2e.scene import NAMESPACES, Notes, Scene
from e2e.story import Chapter, Ended, Outcome, Seen, Step, Teller, chosen, names_of, play, summary, write_result

STATE = ROOT / "build/e2e"
_CLUSTERS: Mapping[str, type[Bundled | Kind]] = {"bundled": Bundled, "kind": Kind}
_FAILED, _USAGE = 1, 2


def main(words: Sequence[str]) -> int:
    """Do what was asked; return the exit code."""
    arguments = _parser().parse_args(words)
    whole = plan.story(with_kafka=arguments.kafka)
    if arguments.list:
        for chapter in (*plan.BEGINNING, *whole):
            for step in chapter:
                print(f"{step.name:<14} {step.title}")
        return 0
    try:
        story = chosen(whole, start=arguments.start, only=arguments.only)
        with _stopping():
            return _run(_CLUSTERS[arguments.cluster](arguments.state.absolute()), arguments, story)
    except Usage as error:
        print(f"e2e: {error}", file=sys.stderr)
        return _USAGE
    except E2eError as error:
        print(f"e2e: {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        print("e2e: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _run(cluster: Cluster, arguments: argparse.Namespace, story: Sequence[Chapter[Scene]]) -> int:
    cluster.check()
    state: Path = arguments.state.absolute()
    keeps = arguments.keep
    ending = () if keeps else ((Step("down", "the cluster is taken down", _down, always=True),),)
    total = len(names_of((*plan.BEGINNING, *story, *ending)))
    teller = Teller(total=total, write=_write)
    _write(f"{total} steps on a {cluster.name} cluster; its state is in {os.path.relpath(state)}")
    scene = Scene(cluster, state, teller, Programs(), Notes(state / "notes.json"))
    shutil.rmtree(state / "evidence", ignore_errors=True)
    if not cluster.is_up():
        scene.notes.clear()
    try:
        ends = play(plan.BEGINNING, scene, teller)
        if ends[-1].outcome is Outcome.PASSED:
            ends = _inside(scene, story, ends)
        if any(end.outcome is Outcome.FAILED for end in ends):
            _write(f"evidence is in {os.path.relpath(state / 'evidence')}")
    except BaseException:
        if not keeps:
            _write("taking the cluster down")
            with _undisturbed():
                cluster.down()
        raise
    ends = play(ending, scene, teller, ends)
    about = {
        "cluster": cluster.name,
        "seconds": round(teller.seconds, 1),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_result(state / "result.json", ends, **about)
    _write(summary(ends, teller.seconds))
    return 0 if all(end.outcome is Outcome.PASSED for end in ends) else _FAILED


def _inside(scene: Scene, story: Sequence[Chapter[Scene]], ends: list[Ended]) -> list[Ended]:
    """Play the story where the cluster's addresses are meant; keep evidence of what failed."""
    with scene.cluster.inside():
        facts = scene.facts
        path = os.pathsep.join(
            [str(facts.programs["kubectl"].parent), str(Path(sys.executable).parent), os.environ["PATH"]]
        )
        environment = {"PATH": path, "KUBECONFIG": str(facts.kubeconfig), "NO_PROXY": "*", "no_proxy": "*"}
        there = replace(scene, run=Programs(environment))
        for chapter in story:
            failed = sum(end.outcome is Outcome.FAILED for end in ends)
            ends = play([chapter], there, scene.teller, ends)
            if sum(end.outcome is Outcome.FAILED for end in ends) > failed:
                _collect(there, chapter[0].name)
    return ends


def _collect(scene: Scene, step: str) -> None:
    """Keep evidence of what failed; the story goes on without it, too."""
    try:
        evidence.collect(scene.cluster, NAMESPACES, scene.folder / "evidence" / step)
    except Exception as error:  # noqa: BLE001 -- whatever stands in its way, the steps to come matter more
        _write(f"evidence of {step} is not whole: {error!r}")


def _down(scene: Scene) -> Seen:
    """Take the cluster down and look for what is left."""
    with _undisturbed():
        scene.cluster.down()
    left = scene.cluster.leftovers()
    if left:
        raise E2eError(f"left behind: {', '.join(left)}")
    scene.notes.clear()
    return Seen("nothing is left: no network namespace, mount, process or control group")


@contextmanager
def _stopping() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C: what was made is taken away then, too."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM, as do the programs that are started meanwhile: what is taken down goes whole."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write(line: str) -> None:
    print(f"e2e: {line}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "e2e", description=__doc__, epilog="Example: python tools/e2e --keep --only flights --only units"
    )
    parser.add_argument("--cluster", choices=sorted(_CLUSTERS), default="bundled", help="which (default: bundled)")
    parser.add_argument("--state", type=Path, default=STATE, help="folder of its state (default: build/e2e)")
    parser.add_argument("--kafka", action="store_true", help="with an experiment over a real Kafka broker, too")
    parser.add_argument("--keep", action="store_true", help="leave the cluster up; a later run goes on with it")
    parser.add_argument("--from", dest="start", metavar="STEP", help="begin with this step, on a cluster that was kept")
    parser.add_argument("--only", action="append", default=[], metavar="STEP", help="these steps alone")
    parser.add_argument("--list", action="store_true", help="print the steps and end")
    return parser
