#!/bin/sh
# Installs the servers that tests start themselves, where it may: as root, on a machine with apt-get.
# Anywhere else it says what is missing; the tests that need it are then skipped, by name.
set -eu
missing=''
need() { command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || missing="$missing $2"; }
need redis-server redis-server
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || need initdb postgresql
need java default-jre-headless  # the Kafka broker, which tools/kafka fetches
"${PYTHON:-python3}" tools/kafka where >/dev/null || need mvn maven
command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 ||
  need chromium-headless-shell chromium-headless-shell  # how pages look
if [ "$(uname -s)" = Linux ]; then  # the node of the test cluster
  need containerd containerd
  need runc runc
  need /usr/lib/cni/bridge containernetworking-plugins
  need nft nftables
  need conntrack conntrack
  need ip iproute2
  need buildah buildah  # the images
fi
[ -n "$missing" ] || { echo "setup: system components are there (redis-server, PostgreSQL, Java, Chromium, and the test cluster's node)"; exit 0; }
if [ "${FAIRLEAD_SYSTEM:-yes}" = yes ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "setup: installing$missing with apt-get (FAIRLEAD_SYSTEM=no leaves the system alone)"
  export DEBIAN_FRONTEND=noninteractive
  # The package's service is not started: tests start their own server on a free port.
  policy=/usr/sbin/policy-rc.d
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; trap 'rm -f $policy' EXIT; }
  # Not every Debian, and no Ubuntu, has every package: what is not known is left out.
  known() { for one; do if apt-cache show "$one" >/dev/null 2>&1; then echo "$one"; else echo "setup: no package $one" >&2; fi; done; }
  # shellcheck disable=SC2046,SC2086  -- lists of words
  { apt-get -qq update && apt-get -qq install --yes --no-install-recommends $(known $missing); } >/dev/null && exit 0
  echo "setup: apt-get could not install$missing" >&2
  [ -z "${CI:-}" ] || exit 1
  exit 0
fi
echo "setup: not here:$missing (tests that need it are skipped; Debian: apt-get install$missing)"
