#!/bin/sh
# Builds the release tools at fixed versions into bin/tools and prints that folder.
# They are not in go.mod, because they would more than double the dependencies.
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/bin/tools
mkdir -p "$tools"
install() { # install PROGRAM MODULE@VERSION
	mark=$tools/.$1-${2##*@}
	[ -e "$mark" ] && [ -x "$tools/$1" ] && return
	GOBIN=$tools GOFLAGS=-trimpath CGO_ENABLED=0 GOTOOLCHAIN=auto ${GO:-go} install "$2" >&2
	touch "$mark"
}
for tool in "${@:-all}"; do
	case $tool in
	goreleaser | all) install goreleaser github.com/goreleaser/goreleaser/v2@v2.15.1 ;;
	esac
	case $tool in
	cyclonedx-gomod | all) install cyclonedx-gomod github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 ;;
	esac
	case $tool in
	oapi-codegen) install oapi-codegen github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2 ;;
	esac
done
echo "$tools"
