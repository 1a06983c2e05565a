"""A session in a folder of its own, with jobs that run until they are told to end."""

import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

PATIENCE = 60
ID = re.compile(r"\b[0-9a-f]{32}\b")


def serve_words(listener):
    """Sends a line every now and then to whoever connects: the input of jobs without an end."""

    def send(connection):
        number = 0
        while True:
            try:
                connection.sendall(f"word{number % 7} and {number % 11}\n".encode())
            except OSError:
                return
            number += 1
            time.sleep(0.01)

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=send, args=(connection,), daemon=True).start()


class Session:
    """`with Session(STREAMCTL, WORD_COUNT) as session:` starts one and ends it."""

    def __init__(self, streamctl, word_count, slots=16):
        self.binary = pathlib.Path(streamctl).absolute()
        self.word_count = str(pathlib.Path(word_count).absolute())
        self.slots = slots
        self.log = []

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.temporary.name)
        # Nothing of the user's own configuration.
        self.environment = {**os.environ, "MILLSTREAM_CONF_DIR": str(self.folder)}
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=serve_words, args=(self.listener,), daemon=True).start()
        self.process = subprocess.Popen(
            [self.binary, "session", "start", "--slots", str(self.slots), "-Drest.port=0",
             "-Dmillstream.session.dir=session", "-Dexecution.checkpointing.savepoint-dir=savepoints"],
            cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.match(r"Session at http://(\S+),", line):
                self.address = found.group(1)
                break
        else:
            raise AssertionError("it does not start: " + "".join(self.log))
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.listener.close()
        self.temporary.cleanup()

    def streamctl(self, verb, *args):
        """What the command line says of this session: exit code, standard output, standard error."""
        ran = subprocess.run([self.binary, verb, "-m", self.address, *args], cwd=self.folder, env=self.environment,
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        return ran.returncode, ran.stdout, ran.stderr

    def ask(self, method, path, body=None):
        """Status and JSON of an answer."""
        request = urllib.request.Request(f"http://{self.address}{path}", method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def upload(self, name):
        """Uploads the component under a name; its id."""
        boundary = "edge"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="jarfile"; filename="{name}"\r\n\r\n'
        body = head.encode() + pathlib.Path(self.word_count).read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        request = urllib.request.Request(f"http://{self.address}/jars/upload", data=body, method="POST")
        request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["filename"].rsplit("/", 1)[-1]

    def submit(self, *options, parallelism=1, **more):
        """A job that counts words until it is told to end; its id."""
        args = more.get("args", ["--host", "127.0.0.1", "--port", str(self.port), "--output", "blackhole"])
        code, out, err = self.streamctl("run", "-d", "-p", str(parallelism), "-Dexecution.checkpointing.interval=200ms",
                                        "-Dexecution.checkpointing.savepoint-dir=savepoints", *options, self.word_count, *args)
        assert code == 0, err
        return ID.search(out).group()

    def until(self, job, state):
        """Waits for a job to be in a state."""
        end = time.monotonic() + PATIENCE
        while (now := self.ask("GET", f"/jobs/{job}/status")[1]["status"]) != state:
            assert time.monotonic() < end, f"{job} is {now}, not {state}:\n{''.join(self.log)}"
            time.sleep(0.05)
