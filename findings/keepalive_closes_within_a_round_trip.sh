#!/usr/bin/env bash
# A request that httpx sends over a connection that has rested for nearly 5 s fails every time, if the server is uvicorn.
#
# Expected: httpx drops idle connections after 5 s, so it does not reuse one that the server has given up. At worst there is
#     a rare race of microseconds, and `retries=3` of the transport covers it.
# Seen: uvicorn gives up after 5 s, too, and starts counting half a round trip earlier. A request that httpx sends less than
#     one round trip before its own limit arrives at a closed connection. On localhost that window is hardly ever met.
#     With 400 ms of round trip (a mobile network) every request after 4.8 s of rest fails with RemoteProtocolError, GET as
#     well as POST; `retries=3` changes nothing, since it is about connecting. A client that polls every 5 s, less the time
#     that its own work takes, stays in that window. With `--timeout-keep-alive 75` none fails.
# Versions: httpx 0.28.1, httpcore 1.0.9, uvicorn 0.54.0, h11 0.16.0. Run on 2026-11-27 with Python 3.11; it takes a minute
#     and printed:
#     server's limit 5 s, rest 4.0 s: ['200']
#     server's limit 5 s, rest 4.8 s: ['RemoteProtocolError']
#     server's limit 5 s, rest 5.5 s: ['200']
#     server's limit 75 s, rest 4.8 s: ['200']
set -euo pipefail
folder=$(mktemp -d)
server=""
trap '[ -z "$server" ] || kill "$server" 2> /dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip --disable-pip-version-check install -qq httpx==0.28.1 httpcore==1.0.9 uvicorn==0.54.0 h11==0.16.0

cat > app.py <<'EOF'
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
EOF

cat > check.py <<'EOF'
import asyncio
import sys

import httpx

ONE_WAY_SECONDS = 0.2


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what arrives, and the end of it, ONE_WAY_SECONDS later."""
    later = asyncio.get_running_loop().call_later
    while data := await reader.read(65536):
        later(ONE_WAY_SECONDS, writer.write, data)
    later(ONE_WAY_SECONDS, writer.close)


async def attempt(client: httpx.AsyncClient, method: str, url: str, rest_seconds: float) -> str:
    now = asyncio.get_running_loop().time
    await client.get(url)
    answered = now()
    await asyncio.sleep(rest_seconds)
    if now() - answered > rest_seconds + ONE_WAY_SECONDS / 2:
        return "too late to count, this machine is busy"
    try:
        return str((await client.request(method, url)).status_code)
    except httpx.RemoteProtocolError as error:
        return type(error).__name__


async def outcomes(server_port: int, rest_seconds: float) -> set[str]:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_connection("127.0.0.1", server_port)
        await asyncio.gather(pump(reader, to_server[1]), pump(to_server[0], writer))

    far = await asyncio.start_server(relay, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{far.sockets[0].getsockname()[1]}/"
    kinds = [(method, retries) for method in ("GET", "POST") for retries in (0, 3)]
    context = httpx.create_ssl_context()
    clients = [httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(verify=context, retries=r)) for _, r in kinds]
    found = await asyncio.gather(*(attempt(c, method, url, rest_seconds) for c, (method, _) in zip(clients, kinds)))
    await asyncio.gather(*(client.aclose() for client in clients))
    await asyncio.sleep(5 * ONE_WAY_SECONDS)  # the relays end with their connections
    return set(found)


limit, port, *rests = sys.argv[1:]
changed = []
for rest in rests:
    found = asyncio.run(outcomes(int(port), float(rest)))
    print(f"server's limit {limit} s, rest {rest} s: {sorted(found)}", flush=True)
    if found != ({"RemoteProtocolError"} if (limit, rest) == ("5", "4.8") else {"200"}):
        changed.append((limit, rest))
raise SystemExit(f"changed: {changed}" if changed else None)
EOF

echo "expected: ['200'] in each line"; echo "seen:"
for limit in 5 75; do
    port=$(venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    venv/bin/uvicorn app:app --lifespan off --log-level warning --port "$port" --timeout-keep-alive "$limit" &
    server=$!
    for _ in $(seq 100); do
        if (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then break; fi
        sleep 0.2
    done
    rests=(4.8)
    if [ "$limit" = 5 ]; then rests=(4.0 4.8 5.5); fi
    nice -n 5 venv/bin/python check.py "$limit" "$port" "${rests[@]}"
    kill "$server"
    wait "$server" || true
    server=""
done
