#!/usr/bin/env bash
# MLServer's batch client drops the parameters of every request, and each request is answered as if it had had none.
#
# Expected: `mlserver infer` reads requests of the Open Inference Protocol, one a line, and sends them. With a batch size of 1
#     a request arrives as it was written; with more, requests are put together where they can be.
# Seen: the `parameters` of the request, of its inputs and of its outputs are gone, at a batch size of 1 as well. There is no
#     warning: the lines of the result look like those of any other request. What a server does by parameters (an idempotency
#     key, a tenant, how an input is encoded) is not done. The client rebuilds each request for tritonclient from the names,
#     shapes, types and data of its tensors, and hands on nothing else; its own code merges parameters for batches before
#     that, which makes them look cared for. What has to arrive must be a tensor.
# Versions: mlserver 1.7.1, tritonclient 2.73.0, pydantic 2.14.4. Run on 2026-11-28 with Python 3.11; it takes a minute or
#     two, most of it for the installation, and printed:
#     batch size 1: sent parameters of 2 requests, 2 inputs and 2 outputs; arrived 0, 0 and 0
#     batch size 2: sent parameters of 2 requests, 2 inputs and 2 outputs; arrived 0, 0 and 0
#     4 of 4 results without an error
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -c 'import sys; sys.exit(sys.version_info >= (3, 13))' || { echo "not run: MLServer needs Python 3.12 or older"; exit 2; }
python3 -m venv venv
venv/bin/python -m pip --disable-pip-version-check install -qq mlserver==1.7.1 tritonclient==2.73.0 pydantic==2.14.4 orjson==3.13.0

cat > check.py <<'EOF'
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

received = []


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        received.append(request)
        n_rows = request["inputs"][0]["shape"][0]
        output = {"name": "y", "shape": [n_rows, 1], "datatype": "FP64", "data": [0.5] * n_rows}
        body = json.dumps({"model_name": "m", "id": request["id"], "outputs": [output]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def request(which):
    tensor = {"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [float(which)], "parameters": {"currency": "EUR"}}
    wanted = {"name": "y", "parameters": {"rounded": True}}
    return {"id": f"r{which}", "parameters": {"customer": f"A-{which}"}, "inputs": [tensor], "outputs": [wanted]}


def own(parts, *names):
    """How many have one of these parameters; `binary_data` is tritonclient's own."""
    return sum(any(name in (part.get("parameters") or {}) for name in names) for part in parts)


server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
Path("requests").write_text("".join(f"{json.dumps(request(which))}\n" for which in range(2)))
print("expected: all that was sent arrives")
print("seen:")
arrived, n_results = [], 0
for size in (1, 2):
    received.clear()
    command = [Path(sys.executable).with_name("mlserver"), "infer", "-u", f"127.0.0.1:{server.server_port}", "-m", "m"]
    subprocess.run(
        [*command, "-i", "requests", "-o", "results", "-s", str(size), "-w", "1", "-r", "1"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    inputs = [part for one in received for part in one["inputs"]]
    outputs = [part for one in received for part in one["outputs"]]
    arrived.append((own(received, "customer"), own(inputs, "currency"), own(outputs, "rounded")))
    n_results += sum("error" not in json.loads(line) for line in Path("results").read_text().splitlines())
    print(
        f"  batch size {size}: sent parameters of 2 requests, 2 inputs and 2 outputs; "
        "arrived {}, {} and {}".format(*arrived[-1])
    )
print(f"  {n_results} of 4 results without an error")
server.shutdown()

checks = {
    "no parameter arrives, alone or in a batch": arrived == [(0, 0, 0)] * 2,
    "no result says so": n_results == 4,
}
changed = [name for name, is_so in checks.items() if not is_so]
raise SystemExit(f"changed: {changed}" if changed else None)
EOF
nice -n 5 venv/bin/python check.py
