# What the scripts share: where the package is, how they speak, how system packages get installed.
# A script sources this one first; the rest of Tools/lib builds on it.

set -euo pipefail
package_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
sdk_dir=$package_dir/.sdk
cd "$package_dir"

# One short line on what happens next.
say() { printf '==> %s\n' "$*" >&2; }

# Ends the script with what is wrong and what to do.
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# quietly COMMAND...: on a terminal shows what the command prints, elsewhere only when it fails.
quietly() {
  if [ -t 2 ]; then
    "$@" >&2
    return
  fi
  local log status=0
  log=$(mktemp)
  "$@" >"$log" 2>&1 || status=$?
  [ $status -eq 0 ] || cat "$log" >&2
  rm -f "$log"
  return $status
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "this needs root and there is no sudo; run as root: $*"
  fi
}

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --yes --no-install-recommends "$@"
}

# The version of an installed package; nothing when it is not installed.
installed_version() {
  dpkg-query -W -f '${db:Status-Abbrev}${Version}' "$1" 2>/dev/null | sed -n 's/^ii *//p' || true
}

# The version that apt would install.
candidate_version() {
  apt-cache policy "$1" | sed -n 's/^ *Candidate: \([^(]*\)$/\1/p'
}

# Fetches the package lists, once in a run.
apt_lists_fetched=
fetch_apt_lists() {
  [ -z "$apt_lists_fetched" ] || return 0
  quietly as_root apt-get -qq -o DPkg::Lock::Timeout=300 update
  apt_lists_fetched=yes
}

# need_packages PACKAGE...: installs those that are missing.
need_packages() {
  local package missing=()
  for package; do [ -n "$(installed_version "$package")" ] || missing+=("$package"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  fetch_apt_lists
  quietly apt_install "${missing[@]}"
}
