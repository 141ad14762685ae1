# debian_root ROOT SUITES PACKAGE...: unpack Debian packages and their dependencies into a folder.
#
# A program newer than the one this system ships is used from such a folder, through the folder's own dynamic
# loader (see root_exec): nothing of the system is replaced. SUITES is a list of words; packages are taken
# from the last suite where it has them. Works as any user, on any system with apt. A folder that was already
# made by the same call is left as it is.

debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

case $(dpkg --print-architecture) in
amd64) multiarch=x86_64-linux-gnu dynamic_loader=ld-linux-x86-64.so.2 ;;
arm64) multiarch=aarch64-linux-gnu dynamic_loader=ld-linux-aarch64.so.1 ;;
*) multiarch=$(uname -m)-linux-gnu dynamic_loader=ld.so ;;
esac

# The Debian mirror that apt uses here; on a system that is not Debian, the public one.
debian_mirror() {
  local mirror=
  if grep -qx 'ID=debian' /etc/os-release; then
    mirror=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
      grep -Eo '^(URIs:|deb .*)[^#]*' | grep -Eo 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true)
  fi
  echo "${mirror:-http://deb.debian.org/debian}"
}

# apt_apart STATE_DIR ARGUMENT...: apt-get with lists, cache and status of its own.
apt_apart() {
  local state=$1
  shift
  apt-get -qq \
    -o Dir::State="$state" -o Dir::State::Lists="$state/lists" -o Dir::State::status="$state/status" \
    -o Dir::Cache="$state/cache" -o Dir::Etc::SourceList="$state/sources.list" \
    -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
    -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 -o Acquire::Languages=none "$@"
}

# Writes the state that apt_apart needs for SUITES ("security" stands for the archive of security updates).
apt_apart_state() {
  local state=$1 suites=$2 mirror suite
  # Debian has it; Ubuntu need not.
  [ -e "$debian_keyring" ] || need_packages debian-archive-keyring
  mirror=$(debian_mirror)
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
  : >"$state/status"
  for suite in $suites; do
    case $suite in
    *-security) echo "deb [signed-by=$debian_keyring] ${mirror%/}-security $suite main" ;;
    *) echo "deb [signed-by=$debian_keyring] $mirror $suite main" ;;
    esac
  done >"$state/sources.list"
  apt_apart "$state" update
}

debian_root() {
  local root=$1 suites=$2 wanted state package
  shift 2
  wanted="$suites: $*"
  [ "$(cat "$root/.made-of" 2>/dev/null)" = "$wanted" ] && return
  say "unpacking $* of Debian ${suites##* } into ${root#"$package_dir"/}"
  rm -rf "$root" "$root.partial"
  state=$root.partial/.apt
  mkdir -p "$state"
  apt_apart_state "$state" "$suites"
  apt_apart "$state" install --yes --no-install-recommends --download-only -t "${suites##* }" "$@" >/dev/null
  for package in "$state"/cache/archives/*.deb; do dpkg-deb -x "$package" "$root.partial"; done
  rm -rf "$state"
  echo "$wanted" >"$root.partial/.made-of"
  mv "$root.partial" "$root"
}

# debian_files ROOT SUITES PACKAGE PATH...: like debian_root, but only some files of one package, into ROOT itself.
debian_files() {
  local root=$1 suites=$2 package=$3 wanted state path
  shift 3
  wanted="$suites: $package: $*"
  [ "$(cat "$root/.made-of" 2>/dev/null)" = "$wanted" ] && return
  say "taking ${*##*/} out of Debian's package $package into ${root#"$package_dir"/}"
  rm -rf "$root" "$root.partial"
  state=$root.partial/.apt
  mkdir -p "$state"
  apt_apart_state "$state" "$suites"
  (cd "$state" && apt_apart "$state" download "$package" && dpkg-deb --fsys-tarfile ./*.deb | tar -x "$@")
  for path; do mv "$state/$path" "$root.partial/"; done
  rm -rf "$state"
  echo "$wanted" >"$root.partial/.made-of"
  mv "$root.partial" "$root"
}

# root_program ROOT PROGRAM WRAPPER: writes WRAPPER, a script that runs a program of the folder.
root_program() {
  mkdir -p "$(dirname "$3")"
  cat >"$3.partial" <<END
#!/bin/sh
root=\$(dirname "\$(readlink -f "\$0")")/../$(basename "$1")
exec "\$root/usr/lib64/$dynamic_loader" --library-path "\$root/usr/lib/$multiarch" "\$root/$2" "\$@"
END
  chmod +x "$3.partial"
  mv "$3.partial" "$3"
}
