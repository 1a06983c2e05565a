#!/usr/bin/env python3
"""Flink's own command line, as it is, against a session: it lists, saves, checkpoints, disposes, stops and cancels.

    flink_client.py STREAMCTL WORD_COUNT FLINK

FLINK is a folder with Flink's `bin` and `lib`, of the packages `apache-flink` and `apache-flink-libraries`. What
`flink` says is compared with what `streamctl` says of a job like it, but for ids, times and Java's traces. Ends with
"N passed, N failed", and with 1 if something differs.
"""

import os
import pathlib
import re
import subprocess
import sys

from session import ID, Session

NOBODY = "00000000000000000000000000000001"


class Flink:
    """`flink` with an own configuration."""

    def __init__(self, home, session):
        self.home, self.session = pathlib.Path(home).absolute(), session
        conf = session.folder / "flink"
        conf.mkdir()
        # Whoever does not answer is not asked again for a minute.
        (conf / "config.yaml").write_text("rest:\n  retry:\n    max-attempts: 2\n    delay: 100 ms\n")
        (conf / "log4j-cli.properties").write_bytes((self.home / "conf/log4j-cli.properties").read_bytes())
        self.environment = {**os.environ, "FLINK_CONF_DIR": str(conf), "FLINK_LOG_DIR": str(conf), "FLINK_HOME": ""}

    def run(self, verb, *args, address=None):
        """Exit code, standard output and standard error."""
        command = [self.home / "bin/flink", verb, "-m", address or self.session.address, *args]
        ran = subprocess.run(command, cwd=self.session.folder, env=self.environment, stdin=subprocess.DEVNULL,
                             capture_output=True, text=True, timeout=180)
        return ran.returncode, ran.stdout, ran.stderr


def masked(text):
    """Ids, times, numbers of checkpoints and names of savepoints as letters; lines of jobs in one order."""
    text = re.sub(r"savepoint-[0-9a-f]{6}-[0-9a-f]{12}", "savepoint-NAME", text)
    text = re.sub(r"\d\d\.\d\d\.\d{4} \d\d:\d\d:\d\d", "TIME", ID.sub("ID", text))
    text = re.sub(r"(Checkpoint(?:\(FULL\))?) \d+", r"\1 N", text)
    return sorted(text.splitlines())


def main(streamctl, word_count, home):
    passed, failed = 0, 0

    def check(name, is_so, *said):
        nonlocal passed, failed
        passed, failed = passed + bool(is_so), failed + (not is_so)
        print(f"{'ok' if is_so else 'FAILED'}: {name}", flush=True)
        if not is_so:
            print(*said, sep="\n", flush=True)

    with Session(streamctl, word_count, slots=6) as session:
        flink = Flink(home, session)

        def same(name, verb, theirs, ours, code=0):
            """Both say the same, and end alike."""
            flinks, own = flink.run(verb, *theirs), session.streamctl(verb, *ours)
            is_so = (flinks[0], masked(flinks[1])) == (own[0], masked(own[1])) and flinks[0] == code
            check(name, is_so, flinks, own)
            return flinks[1], own[1]

        def path_of(said):
            return re.search(r"Path: (\S+)", said).group(1)

        def location(path):
            return session.folder / path.removeprefix("file:")

        same("nothing runs", "list", [], [])
        theirs, ours = session.submit(), session.submit()
        for job in (theirs, ours):
            session.until(job, "RUNNING")
        same("what runs is listed", "list", [], [])
        same("what runs is listed alone", "list", ["-r"], ["-r"])
        same("what waits is listed", "list", ["-s"], ["-s"])

        made = same("a savepoint", "savepoint", [theirs], [ours])
        check("it is there", all((location(path_of(said)) / "_metadata").is_file() for said in made), made)
        native = same("a native one in a folder", "savepoint", ["-type", "native", theirs, "sv"], ["-type", "native", ours, "sv"])
        check("it is there, too", all(path_of(said).startswith("file:sv/") for said in native), native)
        same("one that is not waited for", "savepoint", ["-detached", theirs], ["-detached", ours])
        same("a checkpoint", "checkpoint", [theirs], [ours])
        same("a full one", "checkpoint", ["-full", theirs], ["-full", ours])
        same("disposal", "savepoint", ["-d", path_of(made[0])], ["-d", path_of(made[1])])
        left = [list(location(path_of(said)).rglob("*")) for said in made]
        check("nothing is left of it", left == [[], []], left)
        again = flink.run("savepoint", "-d", path_of(made[0]))
        check("what is gone is not disposed of", again[0] == 1 and "Failed to dispose the savepoint" in again[2], again)

        for verb in ("cancel", "stop", "savepoint", "checkpoint"):
            flinks, own = flink.run(verb, NOBODY), session.streamctl(verb, NOBODY)
            is_so = (flinks[0], masked(flinks[1])) == (own[0], masked(own[1]))
            told = f"Job {NOBODY} not found"
            check(f"{verb} of a job that is not there", is_so and told in flinks[2] and told in own[2], flinks, own)
        bad = flink.run("cancel", "nosuchid")
        check("no id", bad[0] == 1 and 'Cannot parse JobID from "nosuchid"' in bad[1], bad)

        stopped = same("stop", "stop", ["--savepointPath", "sv", theirs], ["--savepointPath", "sv", ours])
        for job in (theirs, ours):
            session.until(job, "FINISHED")
        theirs, ours = (session.submit("-s", path_of(said)) for said in stopped)
        for job in (theirs, ours):
            session.until(job, "RUNNING")
            restored = session.ask("GET", f"/jobs/{job}/checkpoints")[1]["latest"]["restored"]
            check("a job goes on from what was saved", restored["is_savepoint"], restored)
        same("stop with drain", "stop", ["--drain", "-p", "sv", theirs], ["--drain", "-p", "sv", ours])
        for job in (theirs, ours):
            session.until(job, "FINISHED")
        theirs, ours = session.submit(), session.submit()
        for job in (theirs, ours):
            session.until(job, "RUNNING")
        same("cancel", "cancel", [theirs], [ours])
        for job in (theirs, ours):
            session.until(job, "CANCELED")
        same("cancel again", "cancel", [theirs], [ours])
        theirs, ours = session.submit(), session.submit()
        for job in (theirs, ours):
            session.until(job, "RUNNING")
        same("cancel with a savepoint", "cancel", ["-s", "sv", theirs], ["-s", "sv", ours])
        for job in (theirs, ours):
            session.until(job, "CANCELED")
        same("all are listed", "list", ["-a"], ["-a"])
        dead = flink.run("list", address="127.0.0.1:9")
        check("nobody there", dead[0] == 1 and "Connection refused" in dead[2], dead)
        check("nothing panicked", not any("panicked" in line for line in session.log), "".join(session.log[-50:]))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
