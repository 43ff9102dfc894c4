#!/bin/sh
# Prints the version of a build: the tag of HEAD without its v, otherwise the newest
# version in CHANGELOG.md with -dev and the commit. With --changelog it prints only the
# newest version in CHANGELOG.md.
cd "$(dirname "$0")/.."
newest=$(sed -n 's/^## \([0-9][0-9.]*\).*/\1/p' CHANGELOG.md | head -n 1)
if [ "${1:-}" = --changelog ]; then
	echo "$newest"
	exit
fi
tag=$(git describe --tags --exact-match --dirty 2>/dev/null)
if [ -n "$tag" ]; then
	echo "${tag#v}"
else
	commit=$(git rev-parse --short HEAD 2>/dev/null)
	echo "${newest:-0.0.0}-dev${commit:++$commit}"
fi
