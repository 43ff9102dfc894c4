#!/bin/sh
# Builds a release with GoReleaser, as .goreleaser.yaml describes.
#
#   release.sh --snapshot   build everything into dist/, publish nothing
#   release.sh              build and publish the tag of HEAD (needs GITHUB_TOKEN)
#
# A snapshot takes its version from AGENTED_VERSION or, without it, from
# scripts/version.sh.
set -eu
cd "$(dirname "$0")/.."
GO=${GO:-go}
out=bin/release

tools=$(./scripts/release-tool.sh all)
PATH=$tools:$PATH
export PATH CGO_ENABLED=0

# A snapshot takes an interface that is newer than its sources.
if [ "${1:-}" = --snapshot ]; then ./scripts/build-ui.sh --if-possible; else ./scripts/build-ui.sh; fi
[ -f web/dist/app/index.html ] || { echo "the web interface was not built" >&2; exit 1; }
for arch in amd64 arm64; do
	GOOS=linux GOARCH=$arch $GO build -trimpath -ldflags '-s -w' -o "cmd/agented/agshim_$arch.bin" ./cmd/agshim
	$GO run ./scripts/pack "cmd/agented/agshim_$arch.bin"
done

rm -rf "$out"
mkdir -p "$out"
$GO test -count=1 -vet=off ./cmd/agented -run '^TestReleaseFiles$' -release-files "$PWD/$out"
gzip -9 -n "$out"/man/*.1

version=$(./scripts/version.sh --changelog)
# The notes are the section of that version.
awk -v v="$version" '/^## /{on = index($0, v) > 0; next} on' CHANGELOG.md >"$out/notes.md"

if [ "${1:-}" = --snapshot ]; then
	AGENTED_VERSION=${AGENTED_VERSION:-$(./scripts/version.sh)}
	export AGENTED_VERSION
	skip=
	# An image needs a container engine that can build for several platforms.
	docker buildx version >/dev/null 2>&1 || skip=--skip=docker
	exec goreleaser release --snapshot --clean --parallelism 2 $skip
fi
tag=$(git describe --exact-match --tags HEAD)
[ "$tag" = "v$version" ] || { echo "HEAD has the tag $tag, but the newest version in CHANGELOG.md is $version" >&2; exit 1; }
export AGENTED_VERSION="$version"
exec goreleaser release --clean --release-notes "$out/notes.md"
