"""The stack that is compared with: Flask under Gunicorn with one gevent worker,
SQLite, and a queue for each subscriber.

It is written as well as that stack allows: frames are encoded once, SQLite runs
in WAL mode with synchronous=FULL and one connection, prepared statements are
cached, signatures are compared in constant time. It keeps no numbered log, does
not resume streams, and its children die with it.
"""

import hashlib
import hmac
import json
import os
import sqlite3
import time
import uuid

import gevent
from flask import Flask, Response, abort, request
from gevent import subprocess
from gevent.queue import Empty, Queue

SECRET = os.environ["PEER_SECRET"].encode()
KEY = os.environ["PEER_KEY"]
LOGS = os.environ["PEER_DIR"]

db = sqlite3.connect(os.path.join(LOGS, "peer.db"), isolation_level=None, check_same_thread=False)
db.executescript(
    """
    PRAGMA journal_mode=WAL;
    PRAGMA synchronous=FULL;
    CREATE TABLE IF NOT EXISTS execution (
        id TEXT PRIMARY KEY, command TEXT NOT NULL, status TEXT NOT NULL,
        exit_code INTEGER, created_at REAL NOT NULL, started_at REAL, finished_at REAL);
    CREATE INDEX IF NOT EXISTS execution_created ON execution (created_at);
    CREATE INDEX IF NOT EXISTS execution_status ON execution (status, created_at);
    CREATE TABLE IF NOT EXISTS delivery (
        key TEXT PRIMARY KEY, body BLOB NOT NULL, execution_id TEXT NOT NULL, received_at REAL NOT NULL);
    """
)
db.execute("PRAGMA synchronous=FULL")

app = Flask(__name__)
subscribers = {}  # execution id -> set of queues
running = {}


def publish(execution, frame):
    for q in subscribers.get(execution, ()):
        q.put_nowait(frame)


def insert_execution(command, status):
    execution = uuid.uuid4().hex
    db.execute(
        "INSERT INTO execution (id, command, status, created_at) VALUES (?, ?, ?, ?)",
        (execution, json.dumps(command), status, time.time()),
    )
    return execution


def run(execution, command):
    with open(os.path.join(LOGS, execution + ".log"), "wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        running[execution] = process
        db.execute("UPDATE execution SET status='running', started_at=? WHERE id=?", (time.time(), execution))
        seq = 0
        for line in process.stdout:
            seq += 1
            log.write(line)
            log.flush()
            data = json.dumps({"seq": seq, "content": line.rstrip(b"\n").decode("utf-8", "replace")})
            publish(execution, f"id: {seq}\nevent: log\ndata: {data}\n\n".encode())
        code = process.wait()
    status = "success" if code == 0 else "failed"
    db.execute(
        "UPDATE execution SET status=?, exit_code=?, finished_at=? WHERE id=?",
        (status, code, time.time(), execution),
    )
    running.pop(execution, None)
    publish(execution, f"event: complete\ndata: {json.dumps({'status': status, 'exit_code': code})}\n\n".encode())
    publish(execution, None)


def check_key():
    if not hmac.compare_digest(request.headers.get("X-API-Key", ""), KEY):
        abort(401)


@app.get("/health")
def health():
    return {"status": "ok"}


@app.post("/run")
def start():
    check_key()
    command = request.get_json()["command"]
    execution = insert_execution(command, "pending")
    gevent.spawn(run, execution, command)
    return {"execution_id": execution}, 202


@app.post("/stop/<execution>")
def stop(execution):
    check_key()
    process = running.get(execution)
    if process:
        process.kill()
    return {}, 202


@app.get("/stream/<execution>")
def stream(execution):
    check_key()
    queue = Queue()
    group = subscribers.setdefault(execution, set())
    group.add(queue)
    row = db.execute("SELECT status FROM execution WHERE id=?", (execution,)).fetchone()

    def frames():
        try:
            status = row[0] if row else "unknown"
            yield f"event: status\ndata: {json.dumps({'status': status})}\n\n".encode()
            if status not in ("pending", "running"):
                yield f"event: complete\ndata: {json.dumps({'status': status})}\n\n".encode()
                return
            while True:
                try:
                    frame = queue.get(timeout=15)
                except Empty:
                    yield b": heartbeat\n\n"
                    continue
                if frame is None:
                    return
                yield frame
        finally:
            group.discard(queue)

    return Response(frames(), mimetype="text/event-stream", headers={"Cache-Control": "no-cache"})


@app.post("/hook")
def hook():
    body = request.get_data()
    want = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(want, request.headers.get("X-Webhook-Signature-256", "")):
        abort(401)
    json.loads(body)
    key = request.headers["Idempotency-Key"]
    had = db.execute("SELECT execution_id FROM delivery WHERE key=?", (key,)).fetchone()
    if had:
        return {"execution_ids": [had[0]], "verdict": "duplicate"}, 202
    db.execute("BEGIN IMMEDIATE")
    try:
        execution = insert_execution(["true"], "pending")
        db.execute(
            "INSERT INTO delivery (key, body, execution_id, received_at) VALUES (?, ?, ?, ?)",
            (key, body, execution, time.time()),
        )
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    return {"execution_ids": [execution], "verdict": "accepted"}, 202
