#!/bin/sh
# Installs the real agent CLIs that the tests in internal/clireal drive, each at
# a pinned version and into a folder of its own, outside the repository, so that
# nothing here depends on what is on the machine. What is there already is kept.
#
#   install-clis.sh            install what is missing; say what happened to each
#   install-clis.sh --print    print the folder and install nothing
#   install-clis.sh codex ...  only these
#
# One CLI that cannot be installed does not stop the others: its reason is
# printed and kept beside it, and the tests that need it say so when they skip.
set -u

dir=${AGENTED_TEST_CLIS:-${XDG_CACHE_HOME:-$HOME/.cache}/agented-test/clis}
if [ "${1-}" = --print ]; then
	echo "$dir"
	exit 0
fi

# Claude Code asks for Node 22 from 2.1.198 on, though what it installs is a
# native program; 2.1.330 is the version that the recorded samples come from.
claude=@anthropic-ai/claude-code@${CLAUDE_VERSION:-2.1.330}
claude_old=@anthropic-ai/claude-code@2.1.197
codex=@openai/codex@${CODEX_VERSION:-0.169.0}
gemini=@google/gemini-cli@${GEMINI_VERSION:-0.61.0}
opencode=opencode-ai@${OPENCODE_VERSION:-1.18.33}

if ! command -v npm >/dev/null 2>&1; then
	echo "install-clis: npm is not installed, so no CLI can be: install Node.js 20 or later" >&2
	exit 1
fi
mkdir -p "$dir" || exit 1

# say_version PROGRAM runs it with a home of its own: some write there at once.
say_version() {
	mkdir -p "$dir/.home/tmp"
	HOME=$dir/.home TMPDIR=$dir/.home/tmp DISABLE_AUTOUPDATER=1 OPENCODE_DISABLE_AUTOUPDATE=1 \
		timeout 60 "$1" --version </dev/null 2>/dev/null | head -n 1
}

# install NAME PACKAGE puts the package into $dir/NAME.
install() {
	name=$1 package=$2
	program=$dir/$name/node_modules/.bin/$name
	if [ -x "$program" ] && [ "$(cat "$dir/$name/package.txt" 2>/dev/null)" = "$package" ]; then
		echo "install-clis: $name is there: $package"
		return 0
	fi
	rm -rf "${dir:?}/$name"
	mkdir -p "$dir/$name" "$dir/.home/tmp"
	echo '{"private":true}' >"$dir/$name/package.json"
	# A home of its own, since some packages write into it while installing. The
	# user's npm settings still hold: they say where packages come from.
	if ! HOME=$dir/.home NPM_CONFIG_USERCONFIG=${NPM_CONFIG_USERCONFIG:-$HOME/.npmrc} NPM_CONFIG_CACHE=${NPM_CONFIG_CACHE:-$HOME/.npm} \
		npm install --prefix "$dir/$name" --no-audit --no-fund --no-update-notifier --loglevel=error "$package" >"$dir/$name/install.log" 2>&1; then
		reason="npm could not install $package: $(grep -m 1 'npm error' "$dir/$name/install.log" || tail -n 1 "$dir/$name/install.log")"
	else
		version=$(say_version "$program")
		if [ -n "$version" ]; then
			echo "$package" >"$dir/$name/package.txt"
			rm -f "$dir/$name/reason.txt"
			echo "install-clis: $name installed: $package ($version)"
			return 0
		fi
		reason="$package installed, but '$name --version' prints nothing"
	fi
	echo "$reason" >"$dir/$name/reason.txt"
	echo "install-clis: $name is NOT installed: $reason" >&2
	return 1
}

failed=0
for name in ${*:-claude codex gemini opencode}; do
	case $name in
	claude) install claude "$claude" || install claude "$claude_old" || failed=$((failed + 1)) ;;
	codex) install codex "$codex" || failed=$((failed + 1)) ;;
	gemini) install gemini "$gemini" || failed=$((failed + 1)) ;;
	opencode) install opencode "$opencode" || failed=$((failed + 1)) ;;
	*)
		echo "install-clis: $name is not a CLI that is known here: use claude, codex, gemini, opencode" >&2
		exit 2
		;;
	esac
done
if [ "$failed" -gt 0 ]; then
	echo "install-clis: $failed not installed; the tests that need them will say so" >&2
fi
exit 0
