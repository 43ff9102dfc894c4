#!/bin/sh
# Generates clients from docs/reference/openapi.json, in TypeScript and Go, compiles
# them, and lists the triggers of a live server with each. Lints the document first.
# Needs bin/agented and web/node_modules. Exit code 77: cannot run on this machine.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
bin=${AGENTED_BIN:-$root/bin/agented}
[ -x "$bin" ] || { echo "build the program first: make build" >&2; exit 1; }
[ -x web/node_modules/.bin/redocly ] || { echo "NOT CHECKED: run npm ci in web/ first" >&2; exit 77; }
doc=docs/reference/openapi.json
REDOCLY_TELEMETRY=off web/node_modules/.bin/redocly lint --config scripts/redocly.yaml "$doc"

tmp=$(mktemp -d)
pid=
end() {
	[ -z "$pid" ] || kill "$pid" 2>/dev/null || true
	[ -z "$pid" ] || wait "$pid" 2>/dev/null || true
	rm -rf "$tmp"
}
trap end EXIT
trap 'exit 130' INT TERM
mkdir -m 700 "$tmp/run"
key=clients-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
env -i PATH="$PATH" HOME="$tmp" XDG_RUNTIME_DIR="$tmp/run" AGENTED_DATA_DIR="$tmp/data" AGENTED_BIND=127.0.0.1:0 AGENTED_API_KEY="$key" \
	"$bin" serve >"$tmp/log" 2>&1 &
pid=$!
i=0
while [ ! -s "$tmp/run/agented.json" ]; do
	i=$((i + 1))
	[ "$i" -lt 300 ] && kill -0 "$pid" 2>/dev/null || { cat "$tmp/log" >&2; exit 1; }
	sleep 0.1
done
url=$(sed -n 's/.*"\(http:[^"]*\)".*/\1/p' "$tmp/run/agented.json" | head -n 1)
printf 'name: from-a-file\nbackend: command\ncommand: [echo, hi]\n' |
	AGENTED_URL=$url AGENTED_API_KEY=$key "$bin" trigger apply -f - >/dev/null

# TypeScript: openapi-typescript and openapi-fetch.
mkdir "$tmp/ts"
ln -s "$root/web/node_modules" "$tmp/ts/node_modules"
web/node_modules/.bin/openapi-typescript "$doc" -o "$tmp/ts/schema.ts" >/dev/null 2>&1
cat >"$tmp/ts/client.ts" <<'TS'
import createClient from 'openapi-fetch'
import type { paths } from './schema'

const client = createClient<paths>({ baseUrl: process.env.URL!, headers: { 'X-API-Key': process.env.KEY! } })
const { data, error } = await client.GET('/api/v1/triggers', { params: { query: { limit: 10 } } })
if (error) throw new Error(error.detail)
console.log(data.items.map(t => t.name).join())
TS
cat >"$tmp/ts/tsconfig.json" <<'TS'
{
  "compilerOptions": {
    "target": "ES2022", "module": "ESNext", "moduleResolution": "bundler", "strict": true,
    "skipLibCheck": true, "types": ["node"], "outDir": "out"
  },
  "files": ["client.ts"]
}
TS
printf '{"type":"module"}' >"$tmp/ts/package.json"
web/node_modules/.bin/tsc -p "$tmp/ts"
names=$(cd "$tmp/ts" && URL=$url KEY=$key node out/client.js)
[ "$names" = from-a-file ] || { echo "TypeScript client: listed \"$names\"" >&2; exit 1; }
echo "ok   TypeScript client lists triggers"

# Go: oapi-codegen.
tools=$(./scripts/release-tool.sh oapi-codegen)
mkdir -p "$tmp/go/api"
cat >"$tmp/go/main.go" <<'GO'
// Command main lists triggers with the generated client.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"clients/api"
)

func main() {
	key := func(_ context.Context, r *http.Request) error {
		r.Header.Set("X-API-Key", os.Getenv("KEY"))
		return nil
	}
	c, err := api.NewClientWithResponses(os.Getenv("URL"), api.WithRequestEditorFn(key))
	if err != nil {
		panic(err)
	}
	list, err := c.ListTriggersWithResponse(context.Background(), &api.ListTriggersParams{})
	if err != nil {
		panic(err)
	}
	for _, t := range list.JSON200.Items {
		fmt.Println(t.Name)
	}
}
GO
"$tools/oapi-codegen" -generate types,client -package api -o "$tmp/go/api/client.go" "$doc"
(
	cd "$tmp/go"
	export GOFLAGS=-mod=mod
	${GO:-go} mod init clients >/dev/null 2>&1
	${GO:-go} get github.com/oapi-codegen/runtime@v1.9.0 >/dev/null 2>&1
	${GO:-go} mod tidy >/dev/null 2>&1
	${GO:-go} vet ./...
	${GO:-go} build -o client .
)
names=$(URL=$url KEY=$key "$tmp/go/client")
[ "$names" = from-a-file ] || { echo "Go client: listed \"$names\"" >&2; exit 1; }
echo "ok   Go client lists triggers"
