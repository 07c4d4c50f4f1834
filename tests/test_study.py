"""Studies: everything is stored, nothing finished is lost, one process writes."""

from __future__ import annotations

import gzip
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from studying import (
    SIX_NETS,
    environment,
    finish,
    finished,
    make_settings,
    report_of,
    run_python,
    train_made_up,
)

from nas.candidates.candidate import Candidate, Training
from nas.errors import StudyError
from nas.study.folders import (
    all_studies,
    create,
    export_folder,
    load_settings,
    only_study,
    open_study,
    overview,
    read_study,
    report_file,
    winner_folder,
)
from nas.study.settings import check_name, derived_seed
from nas.study.study import Study


@pytest.fixture(params=["journal", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """Return None for the study's own journal, or the URL of another storage."""
    return None if request.param == "journal" else f"sqlite:///{tmp_path}/trials.db"


def small_study(folder: Path, storage: str | None = None, **changes: Any) -> None:
    """Make a study with a candidate in each state, two of them unfinished."""
    with create(folder, make_settings(**changes), storage) as study:
        for _ in range(5):
            assert study.ask() is not None
        finish(study, 0, [0.25, 0.5, 2 / 3])
        study.record(1, report_of(0, 0.125))
        study.tell(1, "pruned", "it was hopeless: ü '\"\\ %")
        study.tell(2, "failed", "loss became NaN")
        study.record(3, report_of(0, 0.5))
        study.record(4, report_of(0, 0.5))
        study.record(4, report_of(1, 0.6))
        study.resume(4)
        study.record(4, report_of(0, 0.75))


def states(candidates: list[Candidate]) -> list[str]:
    """Return the states in the order of the trials."""
    return [candidate.state for candidate in candidates]


def test_everything_of_a_candidate_is_read_back_in_another_process(
    tmp_path: Path, storage: str | None
) -> None:
    """Architecture, costs, seed, state, reason and curve come back as they were."""
    folder = tmp_path / "small"
    small_study(folder, storage)
    read = read_study(folder, storage).candidates()
    assert states(read) == ["complete", "pruned", "failed", "running", "running"]
    assert [len(c.curve) for c in read] == [3, 1, 0, 1, 1]
    assert read[0].curve[2] == report_of(2, 2 / 3)
    assert read[0].val_accuracy == 2 / 3
    assert read[1].reason == "it was hopeless: ü '\"\\ %"
    # Taken up anew: what it reported before is forgotten.
    assert [r.val_accuracy for r in read[4].curve] == [0.75]
    code = (
        "import sys, pathlib; from nas.study.folders import read_study;"
        "folder, storage = sys.argv[1:];"
        "study = read_study(pathlib.Path(folder), storage or None);"
        "print(study.candidates())"
    )
    there = run_python(code, folder, storage or "", cwd=tmp_path)
    assert there.stdout.strip() == repr(read), there.stderr


def test_the_writer_and_a_later_reader_see_the_same(
    tmp_path: Path, storage: str | None
) -> None:
    """What the process that searched holds in memory is what it has written."""
    with create(tmp_path / "small", make_settings(), storage) as study:
        for number in range(3):
            study.ask()
            finish(study, number, [0.1, 0.2, 0.3 + number / 10])
        study.ask()
        study.tell(3, "pruned", "slow")
        written = study.candidates()
    assert read_study(tmp_path / "small", storage).candidates() == written
    with open_study(tmp_path / "small", storage) as again:
        assert again.candidates() == written


def test_trials_of_a_journal_share_names_and_ranges(tmp_path: Path) -> None:
    """A copy for each trial took more than half of the memory of a large study."""
    small_study(tmp_path / "small")
    study = read_study(tmp_path / "small")
    first, *others = study._storage.get_all_trials(study._id, deepcopy=False)
    held = {name: (id(name), id(kind)) for name, kind in first.distributions.items()}
    shared = 0
    for trial in others:
        for name, kind in trial.distributions.items():
            if name in held:
                assert held[name] == (id(name), id(kind))
                shared += 1
    assert shared > 20


def test_a_reader_follows_a_search(tmp_path: Path) -> None:
    """refresh() shows new trials and how unfinished ones have come along."""
    with create(tmp_path / "small", make_settings()) as study:
        study.ask()
        reader = read_study(tmp_path / "small")
        assert states(reader.candidates()) == ["running"]
        finish(study, 0, [0.1, 0.2, 0.3])
        study.ask()
        study.record(1, report_of(0, 0.5))
        reader.refresh()
        assert reader.candidates() == study.candidates()


def test_seeds_follow_from_the_number_of_the_trial(tmp_path: Path) -> None:
    """Trial 3 of seed 7 always trains with one seed, no two trials with the same."""
    with create(tmp_path / "small", make_settings(seed=7)) as study:
        seeds = [study.ask().seed for _ in range(20)]  # type: ignore[union-attr]
    assert seeds == [derived_seed(7, "train", number) for number in range(20)]
    assert len(set(seeds)) == 20
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derived_seed(8, "train", 3) != seeds[3]
    assert derived_seed(7, "draw", 3) != seeds[3]


def test_no_architecture_is_drawn_twice_and_the_last_is_followed_by_none(
    tmp_path: Path,
) -> None:
    """Of a space of six nets each is drawn once, across two processes; then None."""
    settings = make_settings(space_toml=SIX_NETS)
    with create(tmp_path / "small", settings) as study:
        keys = [study.ask().key for _ in range(4)]  # type: ignore[union-attr]
        study.tell(0, "failed", "out of memory")
    with open_study(tmp_path / "small") as study:
        while (candidate := study.ask()) is not None:
            keys.append(candidate.key)
        assert len(keys) == len(set(keys)) == 6
        assert study.ask() is None
        assert len(study.candidates()) == 6


@pytest.mark.parametrize("sampler", ["random", "evolution"])
def test_the_same_seed_draws_the_same_candidates(tmp_path: Path, sampler: str) -> None:
    """Twice the same seed gives the same 20 architectures, another seed others."""

    def draw(name: str, seed: int, reopen_at: int | None = None) -> list[str]:
        settings = make_settings(seed=seed, sampler=sampler)
        study = create(tmp_path / name, settings)
        for number in range(20):
            if number == reopen_at:
                study.close()
                study = open_study(tmp_path / name)
            train_made_up(study, study.ask())
        keys = [candidate.key for candidate in study.candidates()]
        study.close()
        return keys

    keys = draw("first", 0)
    assert draw("second", 0) == keys
    # The plain nets that it begins with are the same for all.
    plain = 0 if sampler == "random" else 6
    assert set(draw("other", 1)[plain:]).isdisjoint(keys)
    assert draw("interrupted", 0, reopen_at=13) == keys


def test_the_evolution_learns_from_complete_and_pruned_candidates(
    tmp_path: Path,
) -> None:
    """Also after the study was closed; from failed and running ones it does not."""
    small_study(tmp_path / "small", sampler="evolution")
    for _ in range(2):
        with open_study(tmp_path / "small") as study:
            known = study._evolution._known
            assert sorted(known) == [0, 1]
            assert known[0].evidence.results.keys() == {4}
            assert known[1].evidence.results == {}


def test_the_sizes_cover_the_range_evenly(tmp_path: Path) -> None:
    """Random draws: a tenth of them in each tenth of the range."""
    with create(tmp_path / "small", make_settings(sampler="random")) as study:
        sizes = drawn_sizes(study, 40)
    counts = [sum(int(10 * size) == tenth for size in sizes) for tenth in range(10)]
    assert min(counts) >= 3
    assert max(counts) <= 5


def test_the_evolution_covers_the_range_and_leans_to_the_cap(tmp_path: Path) -> None:
    """No part of the range is left out, whatever is good there."""
    with create(tmp_path / "small", make_settings(sampler="evolution")) as study:
        drawn_sizes(study, 60)
        sizes = [c.num_params for c in study.candidates()]
    cap = 2000
    assert sum(size > 0.9 * cap for size in sizes) >= 10
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.9)):
        assert sum(low * cap < size <= high * cap for size in sizes) >= 6


def drawn_sizes(study: Study, count: int) -> list[float]:
    """Train so many candidates and return where in the range they were drawn."""
    for _ in range(count):
        train_made_up(study, study.ask())
    reader = read_study(study.folder)
    return [
        trial.params["size"]
        for trial in reader._storage.get_all_trials(reader._id, deepcopy=False)
    ]


def test_who_searches_holds_no_trial_twice(tmp_path: Path) -> None:
    """The storage of a large search kept three quarters of the memory, for nothing."""
    small_study(tmp_path / "small")
    with open_study(tmp_path / "small") as study:
        train_made_up(study, study.ask())
        trials = study._storage.get_all_trials(study._id, deepcopy=False)
        assert [trial.params or trial.distributions for trial in trials] == (
            [{}] * len(trials)
        )
        assert all(trial.user_attrs.get("architecture") is None for trial in trials)
        written = study.candidates()
    reader = read_study(tmp_path / "small")
    assert reader.candidates() == written
    trials = reader._storage.get_all_trials(reader._id, deepcopy=False)
    assert all(trial.params and trial.user_attrs["architecture"] for trial in trials)


def test_a_longer_training_is_read_back(tmp_path: Path) -> None:
    """Its mean over the seeds is what the candidate has; a failed one changes nothing."""
    settings = make_settings(fidelities=(4, 12))
    with create(tmp_path / "small", settings) as study:
        for _ in range(3):
            train_made_up(study, study.ask())
        assert [c.trial for c in study.front()] != []
        assert not any(c.fully_trained for c in study.candidates())
        for seed_number, accuracy in enumerate((0.8, 0.9)):
            curve = (report_of(0, 0.5, 1.0), report_of(1, accuracy, 12.0))
            study.add_training(
                Training(trial=1, epochs=12, seed_number=seed_number, curve=curve)
            )
        study.add_training(Training(trial=2, epochs=12, seed_number=0, curve=()))
        written = study.candidates()
        assert [c.trial for c in study.front()] == [1]
    read = read_study(tmp_path / "small")
    assert read.candidates() == written
    one = read.candidate(1)
    assert (one.val_accuracy, one.epochs, one.seeds) == (pytest.approx(0.85), 12, 2)
    assert one.fully_trained
    assert read.candidate(2).trainings[0].curve == ()
    assert not read.candidate(2).fully_trained
    assert read.epochs_trained()["seeds"] == 12


def test_the_reason_of_an_end_that_was_never_written_is_forgotten(
    tmp_path: Path,
) -> None:
    """A coordinator killed between reason and end leaves a complete trial no reason."""
    with create(tmp_path / "small", make_settings()) as study:
        study.ask()
        study._set(0, "reason", "it was hopeless")
    with open_study(tmp_path / "small") as study:
        assert study.candidate(0).reason is None
        study.resume(0)
        finish(study, 0, [0.1, 0.2, 0.3])
    assert read_study(tmp_path / "small").candidate(0).reason is None


_HOLD = """
import sys, pathlib, time
from nas.study.folders import open_study
study = open_study(pathlib.Path(sys.argv[1]))
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_writer_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    """The lock names its owner, lets readers in, and ends with the process."""
    folder = tmp_path / "small"
    small_study(folder)
    first = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    with first:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        with pytest.raises(StudyError, match=f"searched by process {first.pid}"):
            open_study(folder)
        assert len(read_study(folder).candidates()) == 5
        first.send_signal(signal.SIGKILL)
        first.wait()
    with open_study(folder) as study:
        assert len(study.candidates()) == 5
        with pytest.raises(StudyError, match="is being searched by process"):
            open_study(folder)


@pytest.mark.slow
def test_a_journal_cut_anywhere_in_its_last_records_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each of the last five records nothing that was finished gets lost.

    At their first and last bytes, and at every seventh between.
    """
    monkeypatch.setattr("os.fsync", lambda _: None)
    folder = tmp_path / "small"
    with create(folder, make_settings(space_toml=SIX_NETS)) as study:
        for number in range(3):
            study.ask()
            finish(study, number, [0.1, 0.2, 0.3])
    journal = folder / "journal.log"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    before = study.candidates()
    for cut in range(len(whole) - sum(map(len, lines[-5:])), len(whole)):
        if cut % 7 and b"\n" not in whole[cut - 3 : cut + 3]:
            continue
        journal.write_bytes(whole[:cut])
        with open_study(folder) as study:
            known = study.candidates()
            assert known[:2] == before[:2]
            assert finished(known) == before[:2]
            mended = journal.read_bytes()
            assert mended == whole[: whole[:cut].rfind(b"\n") + 1]
            if cut % 49:
                continue
            # The same search goes on: the same candidate, the same end.
            if len(known) < 3:
                study.ask()
            study.resume(2)
            finish(study, 2, [0.1, 0.2, 0.3])
        assert read_study(folder).candidates() == before


@pytest.mark.parametrize(
    "tail",
    [b"\0" * 5000, b"{", b'{"op_code":8,"worker', b'{"op_code":8,\n', b"\xff\xfe\n"],
)
def test_what_a_power_cut_leaves_at_the_end_is_removed(
    tmp_path: Path, tail: bytes
) -> None:
    """Zeros, half a record or a garbled last line go; all before them stays."""
    small_study(tmp_path / "small")
    journal = tmp_path / "small" / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + tail)
    with open_study(tmp_path / "small") as study:
        assert len(study.candidates()) == 5
    assert journal.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [
        b"Dear diary,\ntoday I searched.\n",
        b"Dear diary",
        b"[1, 2]\n",
        b"12\n12\n",
        b'"op_code"\n' * 2,
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        b'{"op_code": "seven"}\n' * 2,
        b"{}\n",
    ],
)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    """One error for the reader and one for the writer, and not a byte changed."""
    small_study(tmp_path / "small")
    journal = tmp_path / "small" / "journal.log"
    journal.write_bytes(content)
    for use in (read_study, open_study):
        with pytest.raises(StudyError) as caught:
            use(tmp_path / "small")
        assert "\n" not in str(caught.value)
        assert journal.read_bytes() == content


@pytest.mark.parametrize("garbage", [b"garbage\n", b"\0\0\0\n", b'{"op_code":8}\n'])
def test_a_journal_damaged_in_the_middle_is_refused_and_left_alone(
    tmp_path: Path, garbage: bytes
) -> None:
    """Where a whole record amid others is damaged only the user can tell what to do."""
    small_study(tmp_path / "small")
    journal = tmp_path / "small" / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[len(lines) // 2] = garbage
    journal.write_bytes(b"".join(lines))
    for use in (read_study, open_study):
        with pytest.raises(StudyError, match="is damaged or not a study"):
            use(tmp_path / "small")
        assert journal.read_bytes() == b"".join(lines)


def test_a_journal_without_the_study_is_named(tmp_path: Path) -> None:
    """A reader does not advise an address of a database that there is not."""
    small_study(tmp_path / "small")
    (tmp_path / "small" / "journal.log").write_bytes(b"garbage\n")
    with pytest.raises(
        StudyError, match=r"journal in .*small holds no study"
    ) as caught:
        read_study(tmp_path / "small")
    assert "restore it from a copy" in str(caught.value)


def test_a_packed_journal_can_be_looked_at(tmp_path: Path) -> None:
    """A study kept as a result is read like any other; no search goes on with it."""
    with create(tmp_path / "small", make_settings()) as study:
        for _ in range(3):
            train_made_up(study, study.ask())
        expected = study.candidates()
    journal = tmp_path / "small" / "journal.log"
    packed = journal.with_name("journal.log.gz")
    packed.write_bytes(gzip.compress(journal.read_bytes()))
    journal.unlink()
    assert read_study(tmp_path / "small").candidates() == expected
    (row,) = overview(tmp_path)[0]
    assert row["complete"] == 3
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(StudyError, match=r"journal\.log\.gz.*restore it from a copy"):
        read_study(tmp_path / "small")
    with pytest.raises(StudyError, match=r"finished and packed.*--study"):
        open_study(tmp_path / "small")


def test_a_study_in_another_storage_gets_no_second_one(tmp_path: Path) -> None:
    """Without its --storage a study is refused, and with a needless one, too."""
    url = f"sqlite:///{tmp_path}/trials.db"
    small_study(tmp_path / "there", url)
    for use in (read_study, open_study):
        with pytest.raises(StudyError, match="with --storage"):
            use(tmp_path / "there")
    assert not (tmp_path / "there" / "journal.log").exists()
    small_study(tmp_path / "here")
    with pytest.raises(StudyError, match="leave --storage out"):
        open_study(tmp_path / "here", url)
    with pytest.raises(StudyError, match="has a study 'small' already"):
        create(tmp_path / "new", make_settings(), url)
    assert not (tmp_path / "new" / "study.toml").exists()


def test_a_journal_without_its_settings_is_not_taken_over(tmp_path: Path) -> None:
    """A new study never writes into what an old one has left."""
    small_study(tmp_path / "small")
    (tmp_path / "small" / "study.toml").unlink()
    with pytest.raises(StudyError, match=r"study\.toml is not"):
        create(tmp_path / "small", make_settings())


def test_a_study_that_is_there_is_not_begun_again(tmp_path: Path) -> None:
    """Of two processes that begin the same study at once the second is refused."""
    small_study(tmp_path / "small")
    text = (tmp_path / "small" / "study.toml").read_bytes()
    with pytest.raises(StudyError, match="just been begun"):
        create(tmp_path / "small", make_settings(seed=3))
    assert (tmp_path / "small" / "study.toml").read_bytes() == text


@pytest.mark.parametrize(
    "url", ["foo", "sqlite:////no/such/folder/x.db", "oracle://host/x", "redis://host"]
)
def test_a_storage_that_cannot_be_opened_is_one_line(tmp_path: Path, url: str) -> None:
    """An unknown kind, a missing driver or folder: an error, and no study begun."""
    with pytest.raises(StudyError, match="--storage") as caught:
        create(tmp_path / "small", make_settings(), url)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "small" / "study.toml").exists()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """SQLite's word for it ends up in one line."""
    small_study(tmp_path / "small", f"sqlite:///{tmp_path}/trials.db")
    (tmp_path / "trials.db").write_text("Dear diary")
    with pytest.raises(StudyError, match="not a database"):
        open_study(tmp_path / "small", f"sqlite:///{tmp_path}/trials.db")
    assert (tmp_path / "trials.db").read_text() == "Dear diary"


def test_trials_of_another_program_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked for or enqueued through Optuna: one warning, and the search goes on."""
    folder = tmp_path / "small"
    small_study(folder)
    journal = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    theirs = optuna.load_study(
        study_name="small", storage=optuna.storages.JournalStorage(journal)
    )
    before = len(theirs.trials_dataframe())
    theirs.ask()
    theirs.enqueue_trial({"depth": 3})
    with read_study(folder) as study:
        assert [c.trial for c in study.candidates()] == list(range(before))
    (warning,) = caplog.messages
    assert warning == (
        f"trials of small that nas did not make are left out: {before}, {before + 1}"
    )
    with open_study(folder) as study:
        asked = study.ask()
        assert asked is not None
        assert asked.trial == before + 2
        finish(study, asked.trial, [0.5, 0.6, 0.7])
        theirs.ask()  # the enqueued one
        theirs.ask()  # a new one, while the search goes on
        after = study.ask()
        assert after is not None
        assert after.trial == before + 4
        with pytest.raises(StudyError, match=f"no trial {before}: its trials are 0 to"):
            study.candidate(before)
    with read_study(folder) as study:
        trials = [c.trial for c in study.candidates()]
        assert trials == [*range(before), before + 2, before + 4]
        assert study.decisions()[before + 2]["depth"] >= 1


_FILL = """
import sys, pathlib, resource
from nas.study.folders import open_study
from nas.errors import StudyError
study = open_study(pathlib.Path(sys.argv[1]))
size = (study.folder / "journal.log").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 2500, size + 2500))
try:
    while True:
        study.ask()
except StudyError as error:
    print(error)
"""


def test_a_file_that_cannot_grow_costs_nothing_that_was_finished(
    tmp_path: Path,
) -> None:
    """Where the disk gives out in the midst of a record the study opens again after.

    The system's limit on the size of a file breaks a write off as a full disk does.
    """
    folder = tmp_path / "small"
    small_study(folder)
    before = finished(read_study(folder).candidates())
    there = run_python(_FILL, folder, cwd=tmp_path)
    assert "cannot write the study in" in there.stdout, there.stderr
    assert len(there.stdout.splitlines()) == 1
    assert not (folder / "journal.log").read_bytes().endswith(b"\n")
    with open_study(folder) as study:
        assert finished(study.candidates()) == before
        assert study.ask() is not None
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize("name", ["a", "mnist-10000", "A.b_c-9", "0", "x" * 100])
def test_good_names(name: str) -> None:
    """Letters, digits, dots, dashes and underscores make a name."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "-x", ".x", "x" * 101, "ü", "a b", "a\n", "a\0"]
)
def test_bad_names(name: str) -> None:
    """What could leave the folder, hide in it or read as an option is refused."""
    with pytest.raises(StudyError, match="cannot be named"):
        check_name(name)


def test_an_unknown_trial_is_an_error(tmp_path: Path) -> None:
    """The message says which there are."""
    with create(tmp_path / "small", make_settings()) as study:
        with pytest.raises(StudyError, match="no trials yet"):
            study.candidate(0)
        study.ask()
        with pytest.raises(StudyError, match="no trial 1: its trials are 0 to 0"):
            study.candidate(1)


def test_the_overview_counts_the_studies_and_names_the_damaged(tmp_path: Path) -> None:
    """One damaged study hides none of the others, whatever part of it is damaged."""
    for name in ("b", "a", "journal", "toml", "space"):
        small_study(tmp_path / name, name=name, seed=len(name))
    (tmp_path / "journal" / "journal.log").write_text("Dear diary\n")
    (tmp_path / "toml" / "study.toml").write_text("= 3")
    path = tmp_path / "space" / "study.toml"
    text, changes = re.subn(
        r"^depth = \[.*?\]", "depth = [3, 1]", path.read_text(), flags=re.MULTILINE
    )
    assert changes == 1
    path.write_text(text)
    (tmp_path / "no-study").mkdir()
    rows, faults = overview(tmp_path)
    counts = {"complete": 1, "pruned": 1, "failed": 1, "running": 2, "budget": 2000}
    assert rows == [{"name": name} | counts for name in ("a", "b")]
    assert sorted(fault.split(":")[0] for fault in faults) == [
        "journal",
        "space",
        "toml",
    ]
    assert overview(tmp_path / "nothing") == ([], [])


def test_the_only_study_needs_no_name(tmp_path: Path) -> None:
    """With none or with several the message says what to do."""
    with pytest.raises(StudyError, match="`nas search` begins one"):
        only_study(tmp_path)
    small_study(tmp_path / "a", name="a")
    assert only_study(tmp_path) == tmp_path / "a"
    small_study(tmp_path / "b", name="b")
    with pytest.raises(StudyError, match="Give one of a, b"):
        only_study(tmp_path)


def test_a_missing_study_is_an_error(tmp_path: Path) -> None:
    """Reading, opening and the settings all say which study is missing."""
    for use in (read_study, open_study, load_settings):
        with pytest.raises(StudyError, match="no study 'x'"):
            use(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_published_studies_are_listed_behind_the_users_own(tmp_path: Path) -> None:
    """But not one whose name a study of the user's own has."""
    for folder in ("mine", "published/mine", "published/theirs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "study.toml").touch()
    found = [folder.relative_to(tmp_path) for folder in all_studies(tmp_path)]
    assert found == [Path("mine"), Path("published/theirs")]


def test_nothing_is_written_into_a_published_study() -> None:
    """Its winner, report and exports go beside the user's own studies."""
    published, own = Path("studies/published/m"), Path("studies/m")
    assert report_file(published) == Path("studies/m-report.html")
    assert winner_folder(published) == Path("studies/m-best")
    assert export_folder(published / "best-9", "c") == Path("studies/m-best-9/c")
    assert report_file(own) == own / "report.html"
    assert winner_folder(own) == own / "best"
    assert export_folder(own / "best", "c") == own / "best" / "c"
