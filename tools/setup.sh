#!/bin/sh
# Makes the virtual environment: tools/setup.sh VENV PACKAGE...   (called by `make setup`)
# uv does it where it is installed, pip otherwise; both install the same hash-pinned versions.
set -eu
venv=$1; shift
python=${PYTHON:-python3}

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

command -v "$python" >/dev/null 2>&1 || fail "$python is not on the PATH; install Python 3.11 to 3.13, or say which: make setup PYTHON=/path/to/python3.11"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
  3.11 | 3.12 | 3.13) ;;
  *) fail "$python is Python $version; Fairlead needs 3.11 to 3.13, say which: make setup PYTHON=/path/to/python3.11" ;;
esac
"$python" -c 'import venv, ensurepip' 2>/dev/null || command -v uv >/dev/null 2>&1 ||
  fail "$python has no venv module; install it (Debian: apt-get install python3-venv)"

editable=''
for package in "$@"; do editable="$editable -e $package"; done

if command -v uv >/dev/null 2>&1; then
  say "1/3 $venv with Python $version, by uv"
  [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv"
  say "2/3 installing $(grep -c '^[a-z].*==' requirements/all.txt) pinned packages"
  uv pip sync --python "$venv" --require-hashes requirements/all.txt
  say "3/3 installing Fairlead's own packages from this checkout"
  # shellcheck disable=SC2086  -- a list of words
  uv pip install --quiet --python "$venv" --no-deps --no-build-isolation $editable
else
  say "1/3 $venv with Python $version, by pip"
  [ -x "$venv/bin/pip" ] || "$python" -m venv "$venv"
  say "2/3 installing $(grep -c '^[a-z].*==' requirements/all.txt) pinned packages (a minute or two)"
  total=$(grep -c '^[a-z].*==' requirements/all.txt)
  failed=$(mktemp)
  { "$venv/bin/pip" install --disable-pip-version-check --no-compile --require-hashes -r requirements/all.txt || echo $? >"$failed"; } |
    awk -v total="$total" '/^Collecting /{printf "\rsetup:   %3d of %d %-40.40s", ++n, total, $2; fflush()}
      /^Installing /{printf "\rsetup:   unpacking %d packages %-30s", n, ""; fflush()} END{print ""}'
  [ ! -s "$failed" ] || fail "pip could not install; see above"
  rm -f "$failed"
  say "3/3 installing Fairlead's own packages from this checkout"
  # shellcheck disable=SC2086  -- a list of words
  "$venv/bin/pip" install --disable-pip-version-check --quiet --no-deps --no-build-isolation $editable
fi
"$venv/bin/python" tools/native install
touch "$venv/.fairlead-ready"
say "done; $venv/bin/fairlead --help says what there is"
