"""Claims: of two runs of different configurations exactly one proceeds, whatever the moment; the dead block nobody."""

import json
import multiprocessing
import os
import random
import signal
import socket
import time
from dataclasses import asdict

import pytest

from data_engine.core.errors import BusyError, ConfigError, StorageError
from data_engine.core.plan import Group, Plan, Step
from data_engine.io.storage import Storage
from data_engine.runners.books import claim, read_book, require_claimed
from data_engine.runners.claims import FOLDER, Claim, ClaimFile, Owner, read_claims, this_process

SPAWN = multiprocessing.get_context("spawn")
ROUNDS = 12


def plan_of(uri, word):
    group = Group("only", (Step("probe", {}, "segments", word),))
    return Plan("curate", uri, "source", "work/items/x", (group,), 3, 0, {})


def contend(name, words, pauses, outcomes, overwrite):
    """Claims one folder per round at the same moment as the others, holds it for a while, and says how it went."""
    while True:
        round_ = name.recv()
        if round_ is None:
            return
        uri, at = round_
        time.sleep(max(0.0, at + pauses.pop() - time.time()))
        plan = plan_of(uri, words)
        try:
            held = claim(Storage(uri), plan, {"word": words}, overwrite)
        except (BusyError, ConfigError) as error:
            outcomes.send(("refused", str(error)))
            continue
        marker = f"rejects/curate.only/part-00000-{os.getpid()}.txt"
        Storage(uri).write(marker, words.encode())
        time.sleep(0.15)
        kept = Storage(uri).exists(marker)
        outcomes.send(
            ("held" if kept else "lost its tables", read_book(Storage(uri), "curate").signature == plan.signature)
        )
        held.release()


@pytest.fixture
def racers(tmp_path):
    """Starts a process per word; a call races them in fresh folders and yields what became of each."""
    started = []

    def race(words, overwrite=False, prepared=None):
        random_ = random.Random(7)
        for word in words:
            ours, theirs = SPAWN.Pipe()
            pauses = [random_.choice((0.0, 0.0, 0.002, 0.01, 0.03)) for _ in range(ROUNDS)]
            process = SPAWN.Process(target=contend, args=(theirs, word, pauses, theirs, overwrite), daemon=True)
            process.start()
            started.append((process, ours))
        lines = [line for _, line in started]
        for number in range(ROUNDS):
            uri = str(tmp_path / f"out{number}")
            if prepared:
                prepared(uri)
            for line in lines:
                line.send((uri, time.time() + (3.0 if number == 0 else 0.1)))
            yield uri, [line.recv() for line in lines]

    yield race
    for process, line in started:
        line.send(None)
        process.join(5)
        process.kill()


def test_of_different_configurations_exactly_one_proceeds(racers):
    for uri, outcomes in racers(["a", "b", "c"]):
        assert sorted(kind for kind, _ in outcomes) == ["held", "refused", "refused"], uri
        assert all("another configuration" in said for kind, said in outcomes if kind == "refused")
        assert all(said for kind, said in outcomes if kind == "held"), "the book names another run"


def test_of_equal_configurations_both_proceed_and_none_removes_what_the_other_made(racers):
    def old(uri):
        claim(Storage(uri), plan_of(uri, "old"), {"word": "old"}, overwrite=False).release()

    for uri, outcomes in racers(["a", "a"], overwrite=True, prepared=old):
        assert outcomes == [("held", True), ("held", True)], uri


def test_overwrite_waits_for_nobody_but_never_takes_a_folder_from_a_live_run(tmp_path):
    storage = Storage(str(tmp_path))
    ours, theirs = SPAWN.Pipe()
    holder = SPAWN.Process(target=hold, args=(theirs, storage.uri), daemon=True)
    holder.start()
    assert ours.recv() == "held"
    with pytest.raises(
        BusyError, match=rf"process {holder.pid} on {socket.gethostname()} runs curate there"
    ) as refusal:
        claim(storage, plan_of(storage.uri, "b"), {"word": "b"}, overwrite=True)
    assert "Wait for it, stop it, or use another --output" in str(refusal.value)
    assert read_book(storage, "curate").config == {"word": "a"}
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert len(read_claims(storage)) == 1, "a killed process leaves its claim"
    with pytest.raises(ConfigError, match="another configuration .*--overwrite"):
        claim(storage, plan_of(storage.uri, "b"), {"word": "b"}, overwrite=False)
    claim(storage, plan_of(storage.uri, "a"), {"word": "a"}, overwrite=False).release()
    with claim(storage, plan_of(storage.uri, "b"), {"word": "b"}, overwrite=True):
        assert read_book(storage, "curate").config == {"word": "b"}
    assert read_claims(storage) == {}


def hold(line, uri):
    claim(Storage(uri), plan_of(uri, "a"), {"word": "a"}, overwrite=False)
    line.send("held")
    time.sleep(60)


def foreign(storage, seconds_ago, signature="x", **changes):
    """Writes the claim of a process on a machine that cannot be seen from here."""
    owner = Owner("elsewhere 1234 5", 77, "99")
    file = ClaimFile(owner, "curate", signature, ticket=1, held=True, beat=3, time=time.time() - seconds_ago)
    storage.write_json(f"{FOLDER}/77-foreign.json", {**asdict(file), **changes})


def test_a_machine_that_cannot_be_seen_holds_the_folder_as_long_as_it_beats(tmp_path):
    storage = Storage(str(tmp_path))
    foreign(storage, seconds_ago=2)
    with pytest.raises(BusyError, match=r"process 77 on elsewhere .* last seen \d s ago"):
        claim(storage, plan_of(storage.uri, "b"), {}, overwrite=True)


def test_a_silent_machine_is_watched_and_then_loses_the_folder(tmp_path):
    storage = Storage(str(tmp_path))
    foreign(storage, seconds_ago=500)
    with Claim(storage, "curate", "mine", beat_seconds=0.1) as mine, mine.turn():
        assert [claim.owner for claim in read_claims(storage).values()] == [this_process()]


def test_a_machine_with_a_wrong_clock_keeps_the_folder_while_it_beats(tmp_path):
    storage, other = Storage(str(tmp_path)), Storage(str(tmp_path))
    foreign(storage, seconds_ago=500)
    ours, theirs = SPAWN.Pipe()
    beating = SPAWN.Process(target=beat, args=(theirs, other.uri), daemon=True)
    beating.start()
    assert ours.recv() == "beats"
    mine = Claim(storage, "curate", "mine", beat_seconds=0.3)
    with pytest.raises(BusyError, match="elsewhere"), mine.turn():
        pass
    beating.kill()
    beating.join()


def beat(line, uri):
    storage = Storage(uri)
    for number in range(400):
        foreign(storage, seconds_ago=500, beat=10 + number)
        if number == 1:
            line.send("beats")
        time.sleep(0.05)


def test_a_run_of_another_pipeline_is_refused_while_one_runs(tmp_path):
    storage = Storage(str(tmp_path))
    foreign(storage, seconds_ago=1)
    mine = Claim(storage, "synthesize", "mine")
    with pytest.raises(BusyError, match="runs curate there, last seen"), mine.turn():
        pass


def test_a_claim_says_that_its_owner_lives_and_goes_with_it(tmp_path):
    storage = Storage(str(tmp_path))
    with Claim(storage, "curate", "s", beat_seconds=0.05) as mine, mine.turn():
        first = read_claims(storage)[mine.name].beat
        time.sleep(0.3)
        assert read_claims(storage)[mine.name].beat > first
    time.sleep(0.15)
    assert storage.list(FOLDER) == []


def test_a_claim_that_was_removed_is_lost_and_never_written_again(tmp_path):
    storage = Storage(str(tmp_path))
    mine = Claim(storage, "curate", "s", beat_seconds=0.05)
    storage.remove_file(mine.name)
    time.sleep(0.3)
    assert mine.lost
    assert storage.list(FOLDER) == []


def test_who_lost_the_folder_commits_nothing(tmp_path):
    storage = Storage(str(tmp_path))
    slow, other = plan_of(storage.uri, "a"), plan_of(storage.uri, "b")
    claim(storage, slow, {}, overwrite=False).release()
    require_claimed(storage, slow)
    claim(storage, other, {}, overwrite=True).release()
    with pytest.raises(StorageError, match="taken over"):
        require_claimed(storage, slow)


def test_what_is_no_claim_is_passed_over(tmp_path):
    storage = Storage(str(tmp_path))
    for name, content in (("a", b"{"), ("b", b"[]"), ("c", b"{}"), ("d", json.dumps({"owner": 3}).encode())):
        storage.write(f"{FOLDER}/{name}.json", content)
    claim(storage, plan_of(storage.uri, "a"), {}, overwrite=False).release()
