#!/bin/sh
# Writes web/src/api/schema.d.ts: the types of the API, from the description
# that the program itself gives. With --check it only compares.
set -eu
cd "$(dirname "$0")/.."

bin=${AGENTED_BIN:-bin/agented}
[ -x "$bin" ] || { echo "build the program first: make build" >&2; exit 1; }
tmp=$(mktemp -d)
pid=
end() {
	[ -z "$pid" ] || kill "$pid" 2>/dev/null || true
	[ -z "$pid" ] || wait "$pid" 2>/dev/null || true
	rm -rf "$tmp"
}
trap end EXIT INT TERM

mkdir -m 700 "$tmp/run"
key=types-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
env -i PATH="$PATH" HOME="$tmp" XDG_RUNTIME_DIR="$tmp/run" AGENTED_DATA_DIR="$tmp/data" AGENTED_BIND=127.0.0.1:0 AGENTED_API_KEY="$key" \
	"$bin" serve >"$tmp/log" 2>&1 &
pid=$!
i=0
while [ ! -s "$tmp/run/agented.json" ]; do
	i=$((i + 1))
	[ "$i" -lt 100 ] && kill -0 "$pid" 2>/dev/null || { cat "$tmp/log" >&2; exit 1; }
	sleep 0.1
done
url=$(sed -n 's/.*"\(http:[^"]*\)".*/\1/p' "$tmp/run/agented.json" | head -n 1)
node -e '
	const [url, key, file] = process.argv.slice(1)
	fetch(url + "/openapi.json", { headers: { "X-API-Key": key } })
		.then(r => { if (!r.ok) throw new Error("status " + r.status); return r.text() })
		.then(t => require("fs").writeFileSync(file, t))
		.catch(e => { console.error(String(e)); process.exit(1) })
' "$url" "$key" "$tmp/openapi.json"
web/node_modules/.bin/openapi-typescript "$tmp/openapi.json" -o "$tmp/schema.d.ts" >"$tmp/types.log" 2>&1 || { cat "$tmp/types.log" >&2; exit 1; }
if [ "${1:-}" = "--check" ]; then
	if ! cmp -s "$tmp/schema.d.ts" web/src/api/schema.d.ts; then
		echo "web/src/api/schema.d.ts is not what the program describes: run make web-types" >&2
		diff "$tmp/schema.d.ts" web/src/api/schema.d.ts | head -n 20 >&2
		exit 1
	fi
	exit 0
fi
mkdir -p web/src/api
cp "$tmp/schema.d.ts" web/src/api/schema.d.ts
