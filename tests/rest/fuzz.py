#!/usr/bin/env python3
"""Fuzzes a session by its own OpenAPI document, with schemathesis.

    fuzz.py STREAMCTL WORD_COUNT [EXAMPLES]

Jobs run, wait, have ended, failed and are paused meanwhile. Whatever is asked, no answer may be a server's fault, of a
status, a type or a schema that the document does not name. Documents with one fault each show that it would be seen.
Ends with "N passed, N failed", and with 1 if something is not as it should be.
"""

import copy
import json
import pathlib
import subprocess
import sys

from session import Session

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance"
METHODS = ("get", "post", "patch", "delete")
# What may end a job or take something away: it is asked of jobs and components that nothing else needs.
ENDS = {
    ("patch", "/jobs/{jobid}"), ("post", "/applications/{applicationid}/cancel"), ("post", "/jobs/{jobid}/stop"),
    ("post", "/jobs/{jobid}/pause"), ("post", "/jobs/{jobid}/savepoints"), ("post", "/jobs/{jobid}/swap"),
    ("delete", "/jars/{jarid}"),
}


def schemathesis(session, document, examples, *more):
    """Runs it; its exit code, and what it says."""
    file = session.folder / "openapi.json"
    file.write_text(json.dumps(document))
    command = [
        pathlib.Path(sys.executable).parent / "schemathesis", "run", file, "--url", f"http://{session.address}",
        "--checks", CHECKS, "--max-examples", str(examples), "--phases", "examples,coverage,fuzzing",
        "--suppress-health-check", "all", "--warnings", "off", "--request-timeout", "60", "--no-color", *more,
    ]
    ran = subprocess.run(command, cwd=session.folder, capture_output=True, text=True)
    return ran.returncode, ran.stdout + ran.stderr


def with_values(document, kept, ended):
    """The document with what there is in this session in place of what there might be, as often as not."""
    document = copy.deepcopy(document)
    del document["paths"]["/cluster"]
    for path, item in document["paths"].items():
        for method in METHODS:
            for parameter in item.get(method, {}).get("parameters", []):
                values = (ended if (method, path) in ENDS else kept).get(parameter["name"])
                if values:
                    parameter["schema"] = {"anyOf": [{"enum": values}, {"enum": values}, parameter["schema"]]}
    return document


def main(streamctl, word_count, examples=20):
    passed, failed = 0, 0

    def check(name, is_so, said):
        nonlocal passed, failed
        passed, failed = passed + is_so, failed + (not is_so)
        print(f"{'ok' if is_so else 'FAILED'}: {name}")
        if not is_so:
            print(said)

    with Session(streamctl, word_count) as session:
        text = session.folder / "text.txt"
        text.write_text("to be or not to be\n" * 100)
        of_file = ["--input", "text.txt", "--output", "out"]
        running = [session.submit(parallelism=2), session.submit()]
        states = {
            "FINISHED": session.submit(args=of_file),
            "FAILED": session.submit(args=["--input", "none.txt", "--output", "out"]),
            "CANCELED": session.submit(),
            "SUSPENDED": session.submit(),
        }
        waiting = session.submit(parallelism=100, args=of_file)
        victims = [session.submit() for _ in range(6)]
        for job in [*running, *victims, states["CANCELED"], states["SUSPENDED"]]:
            session.until(job, "RUNNING")
        assert session.streamctl("cancel", states["CANCELED"])[0] == 0
        assert session.streamctl("pause", states["SUSPENDED"])[0] == 0
        for state, job in states.items():
            session.until(job, state)
        trigger = session.ask("POST", f"/jobs/{running[0]}/savepoints", {})[1]["request-id"]
        jars = [session.upload("kept.wasm"), session.upload("removed.wasm")]
        job = session.ask("GET", f"/jobs/{running[0]}")[1]
        checkpoints = session.ask("GET", f"/jobs/{running[0]}/checkpoints")[1]["history"]
        kept = {
            "jobid": [running[0], *running, *states.values(), waiting], "applicationid": [*running, waiting],
            "vertexid": [vertex["id"] for vertex in job["vertices"]], "subtaskindex": [0, 1],
            "checkpointid": [checkpoint["id"] for checkpoint in checkpoints], "triggerid": [trigger],
            "taskmanagerid": [session.ask("GET", "/taskmanagers")[1]["taskmanagers"][0]["id"]],
            "jarid": jars[:1], "name": ["session.log"],
        }
        ended = {"jobid": victims, "applicationid": victims, "jarid": jars[1:]}
        document = with_values(session.ask("GET", "/openapi.json")[1], kept, ended)

        code, said = schemathesis(session, document, examples)
        print("\n".join(said.strip().splitlines()[-12:]))
        check("answers are as the document says", code == 0, said)

        # It would be seen if they were not: one path each, with something else in the document.
        overview = copy.deepcopy(document)
        overview["components"]["schemas"]["Overview"]["properties"]["slots-total"] = {"type": "string"}
        states_of = copy.deepcopy(document)
        states_of["components"]["schemas"]["JobStatus"] = {"enum": ["WALKING"]}
        status = copy.deepcopy(document)
        status["paths"]["/jobs/{jobid}/plan"]["get"]["responses"].pop("404")
        kind = copy.deepcopy(document)
        answers = kind["paths"]["/jobmanager/config"]["get"]["responses"]["200"]
        answers["content"] = {"text/plain": {"schema": {"type": "string"}}}
        faults = [
            (overview, "/overview", "Response violates schema"), (states_of, "/jobs", "Response violates schema"),
            (status, "/jobs/{jobid}/plan", "Undocumented status code"),
            (kind, "/jobmanager/config", "Undocumented Content-Type"),
        ]
        for document, path, told in faults:
            code, said = schemathesis(session, document, examples, "--include-path", path)
            check(f"a fault of {path} is seen", code == 1 and told in said, said)

        check("the session is there", session.process.poll() is None, "".join(session.log[-50:]))
        check("nothing panicked", not any("panicked" in line for line in session.log), "".join(session.log[-50:]))
        # Schemathesis remembers ids that it has seen, and cancels whatever it finds: only that jobs still run is sure.
        for job in session.ask("GET", "/jobs")[1]["jobs"]:
            session.ask("PATCH", f"/jobs/{job['id']}")
        job = session.submit(args=[*of_file[:3], "after"])
        session.until(job, "FINISHED")
        rows = sum(len(part.read_text().splitlines()) for part in (session.folder / "after").glob("part-*"))
        check("a job runs to its end", rows == 600, rows)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3], *map(int, sys.argv[3:])))
